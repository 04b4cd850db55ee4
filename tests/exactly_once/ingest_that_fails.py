"""Runs `streams ingest` with a death or a pause at a numbered step, or with a seeded bug.

    python -m tests.exactly_once.ingest_that_fails [die=STEP,TIMES] [freeze=STEP,TIMES] [bug=NAME]

dies by SIGKILL (or freezes by SIGSTOP) when STEP is reached for the TIMES-th time. The steps are
numbered as in streams/ingest/loop.py (1 to 6) and store/state/apply/applier.py (5.1 to 5.6).
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import redis
import typer
from confluent_kafka import Consumer, TopicPartition

from core.dedup import Dedup
from core.process import cli, logs
from core.settings import Settings, load
from store.log import client as log
from store.state import keys
from store.state.apply import applier, entries, entry_applier, pending, planner, positions
from store.state.apply import deletions as store_deletions
from store.state.apply.batches import Batch
from store.state.connection import Pipe
from store.state.shards import Shards
from streams.ingest import loop as ingest
from streams.ingest.apply_thread import ApplyThread
from streams.ingest.assignment import Assignment
from streams.ingest.deletions import recovery
from streams.ingest.deletions.publisher import Publisher

Hook = Callable[..., None]


def _wrap(owner: Any, name: str, before: Hook | None = None, after: Hook | None = None) -> None:
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        if before is not None:
            before(*arguments)
        answer = original(*arguments, **named)
        if after is not None:
            after(*arguments)
        return answer

    setattr(owner, name, wrapped)


def _counts(payload: bytes) -> bool:
    """Whether a payload is a transaction that counts events, and not a batch of items or the
    commands before MULTI.
    """
    return payload.startswith(b"*1\r\n$5\r\nMULTI") and b"HINCRBY" in payload


def _if_counts(hook: Hook) -> Hook:
    return lambda _pipe, payload: hook() if _counts(payload) else None


def _half(hook: Any) -> Hook:
    def send_half(pipe: Pipe, payload: bytes) -> None:
        if _counts(payload):
            if hook.left == 1:
                pipe._connection.send_packed_command([payload[: len(payload) // 2]])
            hook()

    return send_half


STEPS: dict[str, Callable[[Any], None]] = {
    "1-placed": lambda hook: _wrap(Assignment, "_place", after=hook),
    "2-window": lambda hook: _wrap(Dedup, "take_new", after=hook),
    "3-planned": lambda hook: _wrap(planner.Planner, "plan", after=hook),
    "4-dead-letters": lambda hook: _wrap(ApplyThread, "_publish", after=hook),
    "5.1-before-watch": lambda hook: _wrap(
        Pipe, "send", before=lambda _pipe, payload: hook() if b"WATCH" in payload else None
    ),
    "5.2-compared": lambda hook: _wrap(Pipe, "send", before=_if_counts(hook)),
    "5.4-half-sent": lambda hook: _wrap(Pipe, "send", before=_half(hook)),
    "5.4-sent": lambda hook: _wrap(Pipe, "send", after=_if_counts(hook)),
    "5.5-replied": lambda hook: _wrap(
        Pipe,
        "receive_transaction",
        after=lambda _pipe, commands: hook() if commands > 8 else None,
    ),
    "5.6-applied": lambda hook: _wrap(applier.Applier, "apply", after=hook),
    "6-committed": lambda hook: _wrap(ingest.Ingest, "_commit", after=hook),
}


DELETION_STEPS: dict[str, Callable[[Any], None]] = {
    "3-deletions-published": lambda hook: _wrap(Publisher, "publish", after=hook),
}
"""Steps of a batch with deletions, numbered as in store/state/apply/entry_applier.py."""


class Countdown:
    """Signals this process when it is called for the `times`-th time."""

    def __init__(self, times: int, number: signal.Signals) -> None:
        self.left, self._number = times, number

    def __call__(self, *_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            # to this thread: after a signal to the process, it may run on for a while
            signal.pthread_kill(threading.get_ident(), self._number)


def _position_before_apply() -> None:
    """Moves the position first and applies afterwards: a kill in between loses the batch."""

    def apply_late(self: applier.Applier, batches: Sequence[Batch], what: str) -> None:
        for batch in batches:
            self._client.hset(
                keys.ONLY.position(*batch.offsets.source), "position", str(batch.offsets.next)
            )
        _blind(self, batches, what)

    applier.Applier._apply = apply_late  # type: ignore[method-assign]


def _blind(self: applier.Applier, batches: Sequence[Batch], what: str) -> None:
    """Sends the transaction without comparing the positions."""
    self._connected().run(
        [batch.offsets for batch in batches],
        b"".join(batch.payload for batch in batches),
        sum(batch.replies for batch in batches),
        what,
    )


def _retry_by_client() -> None:
    """Sends the same increments again after a lost connection.

    Every seventh reply is dropped here, after Redis has sent it.
    """
    answers = 0
    receive = Pipe.receive_transaction

    def losing(pipe: Pipe, commands: int) -> tuple[list[Any], Any]:
        nonlocal answers
        reply = receive(pipe, commands)
        answers += 1
        if answers % 7 == 0:
            raise redis.ConnectionError("the reply was lost")
        return reply

    def retrying(self: applier.Applier, batches: Sequence[Batch], what: str) -> None:
        try:
            _blind(self, batches, what)
        except redis.ConnectionError:
            self.close()
            _blind(self, batches, what)

    Pipe.receive_transaction = losing  # type: ignore[method-assign]
    applier.Applier._apply = retrying  # type: ignore[method-assign]


def _no_seek_on_assignment() -> None:
    """Reads from the log's beginning, whatever Redis says."""
    place = Assignment._place

    def from_the_beginning(
        self: Assignment, consumer: Consumer, topic: str, number: int
    ) -> TopicPartition:
        place(self, consumer, topic, number)
        partition = self.get(topic, number)
        assert partition is not None
        partition.start = partition.planned = 0
        return TopicPartition(topic, number, 0)

    Assignment._place = from_the_beginning  # type: ignore[method-assign]
    applier.Applier._apply = _blind  # type: ignore[method-assign]


def _no_window_after_restart() -> None:
    """Starts at the position with an empty duplicate window."""
    place = Assignment._place

    def at_the_position(
        self: Assignment, consumer: Consumer, topic: str, number: int
    ) -> TopicPartition:
        place(self, consumer, topic, number)
        partition = self.get(topic, number)
        assert partition is not None
        return TopicPartition(topic, number, partition.planned)

    Assignment._place = at_the_position  # type: ignore[method-assign]


def _no_watch() -> None:
    """Compares the position, but does not notice when it moves before the transaction."""
    send = Pipe.send
    Pipe.send = lambda pipe, payload: send(
        pipe, payload.replace(b"$5\r\nWATCH\r\n", b"$5\r\nTOUCH\r\n")
    )  # type: ignore[method-assign]


def _deletion_erases_later_events() -> None:
    """A deletion removes every event of its user that was applied before it, also those that are
    younger.
    """
    entry_applier.EntryApplier._restorable = lambda *_: {}  # type: ignore[method-assign]


def _dead_profile_returns() -> None:
    """Skips a known deletion, and applies the older profile in its batch."""
    resolve = entries.resolve

    def without_known(batch: Sequence[entries.Entry], known: Any) -> Any:
        right = resolve(batch, known)
        values = {
            entry.digest: entry
            for entry in batch
            if entry.value is not None and (entry.kind, entry.digest) not in right.new
        }
        return right._replace(values=list(values.values()))

    entry_applier.resolve = without_known


def _deletions_recovered_at_start_only() -> None:
    """Marks a Redis that was emptied while ingest runs as if it held every deletion."""
    recover, runs = recovery.recover, 0

    def twice(settings: Settings, shards: Shards) -> int:
        nonlocal runs
        runs += 1
        if runs <= 2:  # at the start, and when the first partitions are assigned
            return recover(settings, shards)
        for client in shards:
            store_deletions.mark_ready(client)
        return 0

    recovery.recover = twice


def _aborted_records_count() -> None:
    """Reads records of transactions that were aborted."""
    config = log.consumer_config
    log.consumer_config = lambda *arguments: (
        config(*arguments) | {"isolation.level": "read_uncommitted"}
    )


def _topic_id_not_compared() -> None:
    """Reads a topic that was created anew as if its offsets were those of the old one."""
    check = positions.check_topic

    def check_offsets(
        topic: str, partition: int, position: positions.Position, high: int, _topic_id: str | None
    ) -> None:
        check(topic, partition, position, high, None)

    positions.check_topic = check_offsets


BUGS: dict[str, Callable[[], None]] = {
    "position-before-apply": _position_before_apply,
    "retry-by-client": _retry_by_client,
    "no-seek-on-assignment": _no_seek_on_assignment,
    "no-window-after-restart": _no_window_after_restart,
    "no-watch": _no_watch,
    "deletion-erases-later-events": _deletion_erases_later_events,
    "dead-profile-returns": _dead_profile_returns,
    "deletions-recovered-at-start-only": _deletions_recovered_at_start_only,
    "aborted-records-count": _aborted_records_count,
    "topic-id-not-compared": _topic_id_not_compared,
}


def main(arguments: list[str]) -> None:
    """Put the faults of the command line into ingest, and run it."""
    settings = load()
    logs.configure("info")
    ingest._COMMIT_S = 0.2
    pending.PIECE, pending.FLUSH_S = 40, 0.5  # so that cuts are made, and interrupted, often
    for argument in arguments:
        what, _, value = argument.partition("=")
        if what == "bug":
            BUGS[value]()
        else:
            step, times = value.split(",")
            (STEPS | DELETION_STEPS)[step](
                Countdown(int(times), signal.SIGKILL if what == "die" else signal.SIGSTOP)
            )
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(lambda: ingest.run(settings))
    sys.argv = sys.argv[:1]
    cli.run(app)


if __name__ == "__main__":
    main(sys.argv[1:])
