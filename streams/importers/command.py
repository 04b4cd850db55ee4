"""Runs `python -m streams import`: sends the rows of a source to Kafka.

Rows are sent at full speed, or at a multiple of the speed of their timestamps.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog

from core.errors import NothingImported, TooManyRejects
from core.process import tables as results
from core.settings import Settings
from store.log.access import permissions
from store.log.producer import Producer
from store.tables import reader as tables
from store.tables.reader import Reader
from streams.importers import preview as previews
from streams.importers import progress_file
from streams.importers.convert import Message, Messages
from streams.importers.plan import Plan
from streams.importers.progress_file import Checkpoints, Progress
from streams.importers.rejects import Rejects
from streams.importers.sorting import TimeOrder
from streams.pace import Clock
from streams.progress import progress

_log = structlog.get_logger(__name__)

CHUNK = 10_000
"""Messages of a sorted import that are sent at once."""


class Import:
    """One import. `tally` counts its rows."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        """Raises ConfigurationError, SourceFailed."""
        self._settings, self._plan = settings, plan
        self.reader = open_reader(plan)
        kind = self.reader.mapping.kind
        self._topic = {
            "interactions": settings.interactions_topic,
            "items": settings.items_topic,
            "users": settings.users_topic,
        }[kind]
        self._progress_path = progress_file.path_beside(plan.rejects)
        self._progress = self._earlier()
        self._skipped = self._progress.acknowledged
        self._messages = Messages(settings, plan, self.reader, self._progress.now)
        self.tally = self._messages.tally
        self._stopped = threading.Event()
        self._is_sorted = plan.sort and kind == "interactions" and plan.database is None

    def stop(self) -> None:
        """Make `run` return after the current batch of rows."""
        self._stopped.set()

    def run(self) -> Counter[str]:
        """Send every row; returns the counts of `tally`.

        Raises LogUnavailable, SourceFailed, NothingImported.
        """
        tally = self.tally
        permissions.prepare_to_send(self._settings, "import", self._topic)
        with (
            Rejects(self._plan.rejects) as rejects,
            Producer(self._settings) as producer,
            TimeOrder(self._plan.sort_bytes) as order,
        ):
            checkpoints = Checkpoints(self._progress_path, self._progress, producer.flush)
            total = self.reader.table.row_count
            chunks: Iterator[Sequence[Message]] = self._messages.chunks(rejects.add)
            if self._is_sorted:
                with progress("reading", total) as advance:
                    self._sort(chunks, order, advance)
                total, chunks = order.count, order.chunks(CHUNK)
            clock = Clock(self._plan.speed, self._stopped) if self._plan.speed is not None else None
            with progress("sending", total) as advance:
                for chunk in self._unsent(chunks, advance):
                    for sent in self._send(producer, chunk, clock):
                        tally.counts["sent"] += sent
                        advance(sent)
                        checkpoints.add(sent)
            if self._stopped.is_set():
                checkpoints.save()
            else:
                checkpoints.finish()
        if not tally.counts["sent"] and not self._skipped and not self._stopped.is_set():
            self._raise_nothing_imported()
        return tally.counts

    def _send(
        self, producer: Producer, chunk: Sequence[Message], clock: Clock | None
    ) -> Iterator[int]:
        """Send the messages, by the clock where there is one; yields how many were sent."""
        if clock is None:
            producer.batch(self._topic, [(key, value) for key, value, _ in chunk])
            yield len(chunk)
            return
        for key, value, timestamp in chunk:
            if not clock.wait(timestamp):
                return
            producer.raw(self._topic, key, value)
            yield 1

    def _earlier(self) -> Progress:
        """The progress of the same import before, where it is to be resumed."""
        source = self.reader.table.name
        options = progress_file.digest(self._settings, self._plan, self.reader)
        if not self._plan.resume:
            return Progress(source, options, time.time())
        before = progress_file.load(self._progress_path)
        progress_file.require_same(self._progress_path, before, source, options)
        return before

    def _unsent(
        self, chunks: Iterator[Sequence[Message]], advance: Callable[[int], None]
    ) -> Iterator[Sequence[Message]]:
        """The messages that no earlier run sent."""
        left = self._skipped
        for chunk in chunks:
            if self._stopped.is_set():
                return
            skipped = min(left, len(chunk))
            left -= skipped
            if skipped:
                self.tally.counts["sent by the run before"] += skipped
                advance(skipped)
            yield chunk[skipped:]

    def _sort(
        self, chunks: Iterator[Sequence[Message]], order: TimeOrder, advance: Callable[[int], None]
    ) -> None:
        """Put all messages in the order of their times, then of the file.

        A history in Redis has the log's order, so the log must have the order of time.
        """
        for chunk in chunks:
            if self._stopped.is_set():
                return
            advance(len(chunk))
            order.add(chunk)

    def _raise_nothing_imported(self) -> None:
        reasons = (
            ", ".join(f"{count} {name}" for name, count in self.tally.counts.items() if count)
            or "it has no rows"
        )
        raise NothingImported(
            f"no row of {self.reader.table.name} was imported: {reasons}"
            + (f"; see {self._plan.rejects}" if self.tally.counts["rejected"] else "")
            + ("; give --default-timestamp" if self.tally.counts["no timestamp"] else "")
        )


def open_reader(plan: Plan) -> Reader:
    """The reader of what the plan names. Raises ConfigurationError, SourceFailed."""
    if plan.database is None or plan.table is None:
        return tables.open_path(plan.path or Path(), plan.reading, time.time())
    from streams.importers.database import Table

    table = Table(plan.database, plan.table)
    reader = Reader(table, plan.reading, time.time())
    table.order_by = reader.mapping.columns.get("timestamp")
    return reader


def preview(settings: Settings, plan: Plan, as_json: bool = False, wide: bool = False) -> None:
    """Show what `run` would read and reject; sends nothing."""
    reader = open_reader(plan)
    messages = Messages(settings, plan, reader, time.time())
    if as_json:
        results.print_json(previews.facts(reader, messages))
    else:
        previews.show(reader, messages, results.console(wide))


def run(settings: Settings, plan: Plan, as_json: bool = False, wide: bool = False) -> None:
    """Import until done, SIGTERM or SIGINT, and print and log the counts.

    Raises what Import raises, and TooManyRejects.
    """
    task = Import(settings, plan)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: task.stop())
    began = time.monotonic()
    try:
        counts = task.run()
    finally:
        if as_json:
            results.print_json(task.tally.facts())
        elif task.tally.read:
            task.tally.table(str(task.reader.table.name)).show(results.console(wide))
    for note in task.reader.notes:
        _log.info("import_note", note=note)
    seconds = time.monotonic() - began
    _log.info(
        "import_finished",
        kind=task.reader.mapping.kind,
        **{name.replace(" ", "_").replace("--", ""): count for name, count in counts.items()},
        seconds=round(seconds, 1),
        per_s=round(counts["sent"] / seconds),
    )
    if counts["rejected"]:
        _log.warning("rows_rejected", rows=counts["rejected"], file=str(plan.rejects))
    if task.tally.rejected_share > plan.max_rejects:
        raise TooManyRejects(
            f"{counts['rejected']} of {task.tally.read} rows were rejected, more than "
            f"--max-rejects {plan.max_rejects:.2%}; the others were sent; see {plan.rejects}"
        )
