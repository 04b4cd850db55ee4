"""Where each partition stands, and whether that still fits the log."""

from __future__ import annotations

from typing import Any, NamedTuple

import redis

from core.errors import ConfigurationError, LogGap, LogRewound, StoreCorrupt
from core.settings import Settings
from store import halts, keys
from store.connection import named_errors
from store.pending import MARK_FIELDS, Mark, read_mark


class Position(NamedTuple):
    """`offset`: the first one that is not in the state (0: nothing applied yet). `topic_id`: of the topic it counts in, if known.

    `popularity`: how much of the log below `offset` the popularities hold.
    """

    offset: int
    topic_id: str | None
    popularity: Mark = Mark()


def read(client: Any, topic: str, partition: int) -> Position:
    """The position of one partition. Raises StoreUnavailable: retry; StoreCorrupt: the key is not what Eddyline writes."""
    key = keys.position(topic, partition)
    with named_errors(f"reading the position of {topic}/{partition} in {key}"):
        offset, topic_id, *mark = client.hmget(key, ["position", "topic_id", *MARK_FIELDS])
    try:
        return Position(int(offset or 0), topic_id.decode() if topic_id else None, read_mark(mark))
    except ValueError as error:
        raise StoreCorrupt(f"{key} holds what Eddyline did not write: {error}; find who else writes into this Redis") from None


def take(client: Any, topic: str, partition: int) -> Position:
    """The position of a partition that this process is going to write.

    Raises StoreUnavailable: retry. Raises StoreCorrupt: the state is incomplete, or the position is lost, which is noted: once the
    foreign key is deleted, a partition without a position would be counted again from the log's beginning.
    """
    halts.check(client, topic, partition)
    try:
        return read(client, topic, partition)
    except StoreCorrupt as error:
        halts.note(client, [(topic, partition)], f"{error}, {halts.MEND}")
        raise


def offsets(client: Any, topic: str, partitions: int) -> list[int]:
    """The positions of the first `partitions` partitions of a topic, by number. Raises StoreUnavailable, StoreCorrupt."""
    with named_errors(f"reading the positions of {topic}"):
        pipe = client.pipeline(transaction=False)
        for partition in range(partitions):
            pipe.hget(keys.position(topic, partition), "position")
        return [int(offset or 0) for offset in pipe.execute()]


def claim(client: redis.Redis, topic: str, partition: int, topic_id: str | None) -> None:
    """Note which topic the position counts in, the first time."""
    if topic_id is not None:
        with named_errors(f"noting the topic of {topic}/{partition}"):
            client.hsetnx(keys.position(topic, partition), "topic_id", topic_id)


def check(topic: str, partition: int, position: Position, low: int, high: int, topic_id: str | None) -> None:
    """Whether a consumer may go on from `position` in a log that holds offsets [low, high).

    Raises LogRewound: the topic was created anew, or the broker lost part of its log. Raises LogGap: events between are gone.
    """
    where = f"{topic}/{partition}"
    if position.topic_id is not None and topic_id is not None and position.topic_id != topic_id:
        raise LogRewound(
            f"{where} was created anew: Redis counts in topic id {position.topic_id}, the broker has {topic_id}. If the old events are in "
            f"the archive, keep it aside and start with an empty Redis and archive; else restore the topic from a backup of the broker"
        )
    if position.offset > high:
        raise LogRewound(
            f"{where}: Redis stands at {position.offset}, but the log ends at {high}: the broker lost {position.offset - high} events that "
            f"are already counted, and new ones would take their offsets. Restore the broker's log, or start over with a new topic "
            f"and an empty Redis (`python -m streams rebuild` brings back what the archive holds)"
        )
    if position.offset < low:
        raise LogGap(
            f"{where}: Redis stands at {position.offset}, but the log begins at {low}: {low - position.offset} events are missing between. "
            f"Run `python -m streams rebuild` to read them from the archive, then start ingest again"
        )


def check_settings(client: redis.Redis, settings: Settings) -> None:
    """Note the settings that shape stored numbers, or compare them with those noted before.

    Raises ConfigurationError: numbers made under two settings must not meet in one key.
    """
    wanted = {
        "popularity_half_life_days": f"{settings.popularity_half_life_days:g}",
        "dedup_window": str(settings.dedup_window),
    } | {
        f"weight {use_case or keys.POPULAR_UNLABELLED}/{event_type}": f"{weight:g}"
        for use_case in (None, *settings.use_cases.by_name)
        for event_type, weight in settings.use_cases.weights(use_case).items()
    }
    with named_errors("comparing settings"):
        pipe: Any = client.pipeline(transaction=True)
        for name, value in wanted.items():
            pipe.hsetnx(keys.INGEST_SETTINGS, name, value)
        pipe.hgetall(keys.INGEST_SETTINGS)
        noted = {name.decode(): value.decode() for name, value in pipe.execute()[-1].items()}
    changed = [f"{name} was {noted[name]} and is {value}" for name, value in wanted.items() if noted[name] != value]
    if changed:
        raise ConfigurationError(
            f"settings that shape stored numbers have changed: {'; '.join(changed)}. Put them back, or run "
            "`python -m streams rebuild --wipe` to make every number anew from the archive"
        )
