"""Where each partition stands, and whether that still fits the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis

from core.errors import ConfigurationError, LogGap, LogRewound, Stale, StoreCorrupt
from core.settings import Settings
from store.state import keys
from store.state.apply import halts
from store.state.apply.pending import MARK_FIELDS, Mark, read_mark
from store.state.connection import named_errors

_START_OVER = (
    "Stop every ingest and run `python -m streams rebuild --wipe --from-log`: it empties "
    "Redis, and ingest then counts what the log holds. "
    "An archive of the former topic stays readable: set another ARCHIVE_URL for the new one"
)


class Position(NamedTuple):
    """`offset`: the first one that is not in the state. `topic_id`: of the topic it counts in, if
    known.

    `popularity`: how much of the log below `offset` the popularities hold. `begins`: the offset at
    which the log began when Redis started to count this partition; what retention had removed
    before was never in Redis.
    """

    offset: int
    topic_id: str | None
    popularity: Mark = Mark()
    begins: int = 0

    @property
    def applied(self) -> bool:
        """Whether anything of this partition was ever applied.

        If not, any log fits: it is read from its beginning.
        """
        return self.offset > self.begins


_FIELDS = ("position", "topic_id", "begins", *MARK_FIELDS)


def read(client: Any, topic: str, partition: int) -> Position:
    """The position of one partition.

    Raises StoreUnavailable: retry; StoreCorrupt: the key is not what Eddyline writes.
    """
    key = keys.position(topic, partition)
    with named_errors(f"reading the position of {topic}/{partition} in {key}"):
        values = client.hmget(key, _FIELDS)
    return _position(key, values)


def take(client: Any, topic: str, partition: int) -> Position:
    """The position of a partition that this process is going to write.

    Raises StoreUnavailable: retry. Raises StoreCorrupt: the state is incomplete, or the position is
    lost, which is noted: once the foreign key is deleted, a partition without a position would be
    counted again from the log's beginning.
    """
    halts.check(client, topic, partition)
    try:
        return read(client, topic, partition)
    except StoreCorrupt as error:
        halts.note(client, [(topic, partition)], f"{error}, {halts.MEND}")
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
            f"{key} holds what Eddyline did not write: {error}; find who else writes into "
            f"this Redis"
        ) from None


def offsets(client: Any, topic: str, partitions: int, topic_id: str | None = None) -> list[int]:
    """The positions of the first `partitions` partitions of a topic, by number: 0 for one that
    counts in another topic than `topic_id`.

    Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors(f"reading the positions of {topic}"):
        pipe = client.pipeline(transaction=False)
        for partition in range(partitions):
            pipe.hmget(keys.position(topic, partition), ["position", "topic_id"])
        return [counting_in(topic_id, noted, int(offset or 0)) for offset, noted in pipe.execute()]


def counting_in(topic_id: str | None, noted: bytes | None, offset: int) -> int:
    """`offset`, or 0 when it counts in another topic (`noted`) than the one with the id `topic_id`:
    nothing of that one was applied.
    """
    is_other = (
        topic_id is not None and noted is not None and noted.decode(errors="replace") != topic_id
    )
    return 0 if is_other else offset


def claim(client: redis.Redis, topic: str, partition: int, topic_id: str | None) -> None:
    """Note which topic the position counts in, the first time."""
    if topic_id is not None:
        with named_errors(f"noting the topic of {topic}/{partition}"):
            client.hsetnx(keys.position(topic, partition), "topic_id", topic_id)


def begin(
    client: redis.Redis, topic: str, partition: int, low: int, topic_id: str | None
) -> Position:
    """Let a partition of which nothing was applied begin at offset `low` of the topic `topic_id`.
    Answers the position as it stands.

    Changes nothing when another process has applied something meanwhile. Raises StoreUnavailable.
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
    """Move a position from `expected` to `offset` without counting anything: what lies between is
    given up.

    The popularities go on at `offset`, too. Raises Stale when the position is not `expected`,
    StoreUnavailable.
    """
    former = _move(
        client, topic, partition, lambda position: offset if position.offset == expected else None
    )
    if former.offset != expected:
        text = (
            f"{topic}/{partition} moved from {expected} to {former.offset} meanwhile: stop "
            f"every ingest, then run this again"
        )
        raise Stale(former.offset, text)


def _move(
    client: redis.Redis,
    topic: str,
    partition: int,
    choose: Callable[[Position], int | None],
    begins: int | None = None,
    topic_id: str | None = None,
) -> Position:
    """Set a position and its mark to what `choose` answers (None: leave them), and the other fields
    if given. Answers the former one.
    """
    key = keys.position(topic, partition)
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
    """Whether a consumer may go on from `position` in a log that holds offsets [low, high). Any log
    fits while nothing was applied.

    Raises LogRewound as `check_topic` does. Raises LogGap: the log no longer holds offsets after
    the position, and there may have been events in them.
    """
    check_topic(topic, partition, position, high, topic_id)
    if position.applied and position.offset < low:
        raise LogGap(
            f"{topic}/{partition}: Redis stands at {position.offset}, but the log begins at "
            f"{low}: {low - position.offset} offsets between "
            "are gone. Run `python -m streams rebuild`, which reads them from the archive "
            "or says what else can be done, then start ingest"
        )


def check_topic(
    topic: str, partition: int, position: Position, high: int, topic_id: str | None
) -> None:
    """Whether `position` counts in the log that ends at `high`, whose topic has the id `topic_id`.

    Raises LogRewound: the topic was created anew, or the broker lost part of its log.
    """
    if not position.applied:
        return
    where = f"{topic}/{partition}"
    if position.topic_id is not None and topic_id is not None and position.topic_id != topic_id:
        raise LogRewound(
            f"{where} was created anew: Redis counts in topic id {position.topic_id}, the "
            f"broker has {topic_id}. Redis may hold events "
            f"of both. {_START_OVER}"
        )
    if position.offset > high:
        raise LogRewound(
            f"{where}: Redis stands at {position.offset}, but the log ends at {high}: the "
            f"broker lost {position.offset - high} offsets "
            f"that are already counted, and new events would take them. Restore the "
            f"broker's log. If that is impossible: {_START_OVER}"
        )


def check_settings(client: redis.Redis, settings: Settings) -> None:
    """Note the settings that shape stored numbers, or compare them with those noted before.

    Raises ConfigurationError: numbers made under two settings must not meet in one key.
    """
    with named_errors("noting settings"):
        pipe: Any = client.pipeline(transaction=True)
        for name, value in _shaping(settings).items():
            pipe.hsetnx(keys.INGEST_SETTINGS, name, value)
        pipe.execute()
    compare_settings(client, settings)


def compare_settings(client: redis.Redis, settings: Settings) -> None:
    """Compare them, and note nothing. Raises ConfigurationError."""
    with named_errors("comparing settings"):
        fields: Any = client.hgetall(keys.INGEST_SETTINGS)
    noted = {name.decode(): value.decode() for name, value in fields.items()}
    now = _shaping(settings)
    changed = [
        f"{name} was {noted[name]} and is {value}"
        for name, value in now.items()
        if noted.get(name, value) != value
    ]
    if changed:
        raise ConfigurationError(
            f"settings that shape stored numbers have changed: {'; '.join(changed)}. Put "
            f"them back, or run "
            "`python -m streams rebuild --wipe` to make every number anew from the archive"
        )


def _shaping(settings: Settings) -> dict[str, str]:
    """The settings that stored numbers follow from."""
    return {
        "popularity_half_life_days": f"{settings.popularity_half_life_days:g}",
        "dedup_window": str(settings.dedup_window),
    } | {
        f"weight {use_case or keys.POPULAR_UNLABELLED}/{event_type}": f"{weight:g}"
        for use_case in (None, *settings.use_cases.by_name)
        for event_type, weight in settings.use_cases.weights(use_case).items()
    }
