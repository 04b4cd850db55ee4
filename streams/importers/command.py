"""Runs `python -m streams import`: sends the rows of a source to Kafka.

Rows are sent at full speed, or at a multiple of the speed of their timestamps.
"""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from core.errors import BadEvent, NothingImported
from core.settings import Settings
from store.log import client as log
from store.log.producer import Producer
from streams.importers import convert, formats
from streams.importers.convert import Message, Skip
from streams.importers.formats import Format, Kind
from streams.importers.rejects import Rejects
from streams.importers.sources import Source, open_file
from streams.pace import Clock
from streams.progress import progress

_log = structlog.get_logger(__name__)

REJECTS = Path("rejects.jsonl")
"""Default file for the rows that are no valid event."""
CHUNK = 10_000
"""Messages in one batch."""


Chunk = list[tuple[bytes, bytes, float]]
"""Key, value and timestamp of each message."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to import; see the command's --help.

    `speed`: multiple of the events' own speed; None: as fast as possible. `rejects`: the file for
    rows that are no valid event.
    """

    path: Path | None = None
    database: str | None = None
    table: str | None = None
    kind: Kind | None = None
    mapping: Mapping[str, str] = {}
    constants: Mapping[str, str] = {}
    delimiter: str | None = None
    per_second: float | None = None
    min_value: float | None = None
    default_timestamp: float | None = None
    speed: float | None = None
    sort: bool = True
    limit: int | None = None
    rejects: Path = REJECTS


class Import:
    """One import. `counts` has `sent`, `rejected` and each reason to skip a row."""

    def __init__(self, settings: Settings, plan: Plan) -> None:
        """Raises ConfigurationError, SourceFailed."""
        self._settings, self._plan = settings, plan
        self._source = _source(plan)
        self.format = formats.choose(
            plan.path,
            self._source.columns,
            plan.kind,
            plan.mapping,
            plan.constants,
            plan.per_second,
        )
        self._convert = _converter(settings, plan, self._source, self.format)
        self._topic = {
            "interactions": settings.interactions_topic,
            "items": settings.items_topic,
            "users": settings.users_topic,
        }[self.format.kind]
        self._stopped = threading.Event()
        self._rejects = Rejects(plan.rejects, list(self.format.columns))
        self.counts: Counter[str] = Counter()

    def stop(self) -> None:
        """Make `run` return after the current row."""
        self._stopped.set()

    def run(self) -> Counter[str]:
        """Send every row; returns `counts`.

        Raises LogUnavailable, SourceFailed, NothingImported.
        """
        log.ensure_topics(self._settings)
        with self._rejects, Producer(self._settings) as producer:
            chunks: Iterator[Chunk]
            if (
                self._plan.sort
                and self.format.kind == "interactions"
                and self._plan.database is None
            ):
                with progress("reading", self._source.row_count) as advance:
                    table = self._sorted(advance)
                total, chunks = table.num_rows, _unpacked(table)
            else:
                total, chunks = self._source.row_count, _chunked(self._messages(_no_progress))
            clock = Clock(self._plan.speed, self._stopped) if self._plan.speed is not None else None
            with progress("sending", total) as advance:
                for chunk in chunks:
                    if self._stopped.is_set():
                        break
                    self._send(producer, chunk, clock, advance)
        if not self.counts["sent"] and not self._stopped.is_set():
            reasons = (
                ", ".join(f"{count} {name}" for name, count in self.counts.items())
                or "it has no rows"
            )
            raise NothingImported(
                f"no row of {self._source.name} was imported: {reasons}"
                + (f"; see {self._plan.rejects}" if self.counts["rejected"] else "")
            )
        return self.counts

    def _send(
        self,
        producer: Producer,
        chunk: Chunk,
        clock: Clock | None,
        advance: Callable[[int], None],
    ) -> None:
        if clock is None:
            producer.batch(self._topic, [(key, value) for key, value, _ in chunk])
            self.counts["sent"] += len(chunk)
            advance(len(chunk))
            return
        for key, value, timestamp in chunk:
            if not clock.wait(timestamp):
                return
            producer.raw(self._topic, key, value)
            self.counts["sent"] += 1
            advance(1)

    def _messages(self, advance: Callable[[int], None]) -> Iterator[Message]:
        remaining = self._plan.limit
        for count, (number, row) in enumerate(self._source.rows(self.format), 1):
            if self._stopped.is_set() or remaining == 0:
                return
            if count % CHUNK == 0:
                advance(CHUNK)
            try:
                message = self._convert(number, row)
            except Skip as skip:
                self.counts[skip.reason] += 1
                continue
            except BadEvent as error:
                self.counts["rejected"] += 1
                self._rejects.add(number, row, error)
                continue
            yield message
            if remaining is not None:
                remaining -= 1

    def _sorted(self, advance: Callable[[int], None]) -> pa.Table:
        """All messages in the order of their timestamps, then of the file.

        A history in Redis has the log's order, so the log must have the order of time.
        """
        schema = pa.schema(
            [
                ("key", pa.binary()),
                ("value", pa.binary()),
                ("timestamp", pa.float64()),
                ("row", pa.int64()),
            ]
        )
        batches: list[pa.RecordBatch] = []
        chunk: list[Message] = []
        for message in self._messages(advance):
            chunk.append(message)
            if len(chunk) == CHUNK:
                batches.append(_packed(chunk, schema, len(batches) * CHUNK))
                chunk = []
        batches.append(_packed(chunk, schema, len(batches) * CHUNK))
        table = pa.Table.from_batches(batches, schema)
        return table.take(
            pc.sort_indices(table, [("timestamp", "ascending"), ("row", "ascending")])
        )


def run(settings: Settings, plan: Plan) -> None:
    """Import until done, SIGTERM or SIGINT, and log the counts."""
    task = Import(settings, plan)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: task.stop())
    began = time.monotonic()
    counts = task.run()
    seconds = time.monotonic() - began
    _log.info(
        "import_finished",
        kind=task.format.kind,
        **{name.replace(" ", "_").replace("--", ""): count for name, count in counts.items()},
        seconds=round(seconds, 1),
        per_s=round(counts["sent"] / seconds),
    )
    if counts["rejected"]:
        _log.warning("rows_rejected", rows=counts["rejected"], file=str(plan.rejects))


def _source(plan: Plan) -> Source:
    if plan.database is not None and plan.table is not None:
        from streams.importers.database import Table

        return Table(plan.database, plan.table)
    return open_file(plan.path or Path(), plan.delimiter)


def _converter(
    settings: Settings, plan: Plan, source: Source, format_: Format
) -> Callable[[int, Sequence[Any]], Message]:
    if format_.kind == "items":
        return convert.items(format_)
    if format_.kind == "users":
        return convert.users(format_)
    return convert.interactions(
        format_,
        source,
        settings.use_cases,
        time.time(),
        min_value=plan.min_value,
        default_timestamp=plan.default_timestamp,
    )


def _packed(messages: Sequence[Message], schema: pa.Schema, first: int) -> pa.RecordBatch:
    columns = [
        [message.key for message in messages],
        [message.value for message in messages],
        [message.timestamp for message in messages],
        list(range(first, first + len(messages))),
    ]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)],
        schema=schema,
    )


def _unpacked(table: pa.Table) -> Iterator[Chunk]:
    for batch in table.to_batches(CHUNK):
        yield list(
            zip(
                *(batch.column(name).to_pylist() for name in ("key", "value", "timestamp")),
                strict=True,
            )
        )


def _chunked(messages: Iterator[Message]) -> Iterator[Chunk]:
    while chunk := [
        (message.key, message.value, message.timestamp)
        for message in itertools.islice(messages, CHUNK)
    ]:
        yield chunk


def _no_progress(_count: int) -> None:
    """Without a sort, only what was sent is progress."""
