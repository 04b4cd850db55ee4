"""Reads and moves partition positions, and checks that they still fit the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis

from core.errors import LogGap, LogRewound, Stale, StoreCorrupt
from store.state import keys
from store.state.apply import halts
from store.state.apply.pending import MARK_FIELDS, Mark, read_mark
from store.state.connection import named_errors
from store.state.shards import Shards

_START_OVER = (
    "Stop every ingest and run `python -m streams rebuild --wipe --from-log`: it empties "
    "Redis, and ingest then counts what the log holds. "
    "An archive of the former topic stays readable: set another ARCHIVE_URL for the new one"
)


class Position(NamedTuple):
    """A partition position.

    `offset`: the first offset that is not in the state. `topic_id`: the id of the topic in which it
    counts, if known. `popularity`: the part of the log that popularity holds. `begins`: the first
    offset of the log when Redis began to count this partition; earlier records, which retention had
    removed, were never in Redis.
    """

    offset: int
    topic_id: str | None
    popularity: Mark = Mark()
    begins: int = 0

    @property
    def applied(self) -> bool:
        """Whether any record of this partition was ever applied.

        If not, every log fits, and is read from its beginning.
        """
        return self.offset > self.begins


_FIELDS = ("position", "topic_id", "begins", *MARK_FIELDS)


def read(client: Any, topic: str, partition: int) -> Position:
    """The position of one partition.

    Raises StoreUnavailable: retry. Raises StoreCorrupt: Eddyline did not write this key.
    """
    key = keys.of(client).position(topic, partition)
    with named_errors(f"reading the position of {topic}/{partition} in {key}"):
        values = client.hmget(key, _FIELDS)
    return _position(key, values)


def take(client: Any, topic: str, partition: int) -> Position:
    """The position of a partition that this process is going to write.

    Raises StoreUnavailable: retry. Raises StoreCorrupt: the state is incomplete, or the position is
    lost. A lost position is noted: after the foreign key is deleted, the partition would be counted
    again from the log's beginning.
    """
    halts.check(client, topic, partition)
    try:
        return read(client, topic, partition)
    except StoreCorrupt as error:
        halts.note(client, [(topic, partition)], f"{error}, {halts.REBUILD_ADVICE}")
        raise


def _position(key: str, values: Sequence[bytes | None]) -> Position:
    """Raises StoreCorrupt."""
    offset, topic_id, begins, *mark = values
    try:
        return Position(
            int(offset or 0),
            topic_id.decode() if topic_id else None,
            read_mark(mark),
            int(begins or 0),
        )
    except ValueError as error:
        raise StoreCorrupt(
            f"{key} holds a value that Eddyline did not write: {error}; find who else writes into "
            f"this Redis"
        ) from None


def offsets(shards: Shards, topic: str, partitions: int, topic_id: str | None = None) -> list[int]:
    """The positions of the first `partitions` partitions of a topic, by number.

    0 for a position that counts in a topic with another id than `topic_id`. Raises
    StoreUnavailable, StoreCorrupt.
    """
    by_client: dict[Any, list[int]] = {}
    for partition in range(partitions):
        by_client.setdefault(shards.of_partition(topic, partition), []).append(partition)
    stored: dict[int, int] = {}
    for client, numbers in by_client.items():
        stored |= zip(numbers, offsets_in(client, topic, numbers, topic_id), strict=True)
    return [stored[partition] for partition in range(partitions)]


def offsets_in(
    client: Any, topic: str, partitions: Sequence[int], topic_id: str | None = None
) -> list[int]:
    """As `offsets`, for partitions of one shard."""
    with named_errors(f"reading the positions of {topic}"):
        pipe = client.pipeline(transaction=False)
        for partition in partitions:
            pipe.hmget(keys.of(client).position(topic, partition), ["position", "topic_id"])
        return [
            offset_in(topic_id, stored_id, int(offset or 0)) for offset, stored_id in pipe.execute()
        ]


def offset_in(topic_id: str | None, stored_id: bytes | None, offset: int) -> int:
    """The position in the topic with the id `topic_id`.

    It is `offset`, or 0 if `offset` counts in a topic with another id, `stored_id`: then no record
    of this topic was applied.
    """
    if topic_id is None or stored_id is None:
        return offset
    return offset if stored_id.decode(errors="replace") == topic_id else 0


def claim(client: redis.Redis, topic: str, partition: int, topic_id: str | None) -> None:
    """Store the id of the topic in which the position counts, unless one is stored."""
    if topic_id is not None:
        with named_errors(f"writing the topic id of {topic}/{partition}"):
            client.hsetnx(keys.of(client).position(topic, partition), "topic_id", topic_id)


def begin(
    client: redis.Redis, topic: str, partition: int, low: int, topic_id: str | None
) -> Position:
    """Start a partition without applied records at offset `low` of the topic with this id.

    Returns the current position: unchanged if another process has applied records meanwhile. Raises
    StoreUnavailable.
    """
    former = _move(
        client,
        topic,
        partition,
        lambda position: None if position.applied else low,
        begins=low,
        topic_id=topic_id,
    )
    return former if former.applied else Position(low, topic_id, Mark(low, low), low)


def skip(client: redis.Redis, topic: str, partition: int, expected: int, offset: int) -> None:
    """Move a position and its popularity from `expected` to `offset` and skip the records between.

    Raises Stale when the position is not `expected`, StoreUnavailable.
    """
    former = _move(
        client, topic, partition, lambda position: offset if position.offset == expected else None
    )
    if former.offset != expected:
        raise Stale(
            former.offset,
            f"{topic}/{partition} moved from {expected} to {former.offset} meanwhile: stop "
            f"every ingest, then run this again",
        )


def _move(
    client: redis.Redis,
    topic: str,
    partition: int,
    choose: Callable[[Position], int | None],
    begins: int | None = None,
    topic_id: str | None = None,
) -> Position:
    """Set a position and its mark to the offset that `choose` returns, and the other fields.

    None from `choose` changes nothing, a field that is None stays. Returns the former position.
    """
    key = keys.of(client).position(topic, partition)
    former = Position(0, None)

    def change(pipe: Any) -> None:
        nonlocal former
        former = _position(key, pipe.hmget(key, _FIELDS))
        offset = choose(former)
        pipe.multi()
        if offset is not None:
            fields = {
                "position": offset,
                "popularity_first": offset,
                "popularity_next": offset,
                "popularity_after": "",
                "popularity_default": "",
            }
            others = {"begins": begins, "topic_id": topic_id}
            pipe.hset(
                key,
                mapping=fields
                | {name: value for name, value in others.items() if value is not None},
            )

    with named_errors(f"moving the position of {topic}/{partition}"):
        client.transaction(change, key)
    return former


def check(
    topic: str, partition: int, position: Position, low: int, high: int, topic_id: str | None
) -> None:
    """Check that a consumer can continue from `position` in a log with the offsets [low, high).

    Every log fits before the first record is applied. Raises LogRewound as `check_topic` does.
    Raises LogGap: the log has lost offsets after the position, which may have had events.
    """
    check_topic(topic, partition, position, high, topic_id)
    if position.applied and position.offset < low:
        raise LogGap(
            f"{topic}/{partition}: Redis stands at {position.offset}, but the log begins at "
            f"{low}: it has lost {low - position.offset} offsets. Run `python -m streams rebuild`, "
            "which reads them from the archive or says what else can be done, then start ingest"
        )


def check_topic(
    topic: str, partition: int, position: Position, high: int, topic_id: str | None
) -> None:
    """Check that `position` counts in the log that ends at `high` and whose topic has this id.

    Raises LogRewound: the topic was created again, or the broker lost the end of its log.
    """
    if not position.applied:
        return
    where = f"{topic}/{partition}"
    if position.topic_id is not None and topic_id is not None and position.topic_id != topic_id:
        raise LogRewound(
            f"{where} was created anew: Redis counts in topic id {position.topic_id}, the "
            f"broker has {topic_id}. Redis may hold events of both. {_START_OVER}"
        )
    if position.offset > high:
        raise LogRewound(
            f"{where}: Redis stands at {position.offset}, but the log ends at {high}: the "
            f"broker lost {position.offset - high} offsets that are already counted, and new "
            f"events would get the same offsets. Restore the broker's log. If that is impossible: "
            f"{_START_OVER}"
        )
