"""Decides where ingest starts to read a partition: compares its position in Redis with the offsets
that the log holds.
"""

from __future__ import annotations

from typing import NamedTuple

import structlog
from confluent_kafka import Consumer

from core.errors import ArchiveError, ConfigurationError, LogGap
from core.redaction import masked_url
from core.settings import Settings
from store.archive.archive import Archive
from store.log import ends as log_ends
from store.log.topics.ids import TopicId
from store.state.apply import positions
from store.state.apply.positions import Position
from store.state.connection import Client

_log = structlog.get_logger(__name__)


class Placement(NamedTuple):
    """A partition's position in Redis, and the offsets [low, high) that the log holds."""

    topic: str
    number: int
    topic_id: TopicId
    position: Position
    low: int
    high: int


def place(
    settings: Settings,
    client: Client,
    consumer: Consumer,
    topic: str,
    partition: int,
    topic_id: TopicId,
) -> Placement:
    """Compare Redis with the log. A partition of which nothing was applied starts where the log
    starts.

    `client`: of the partition's shard. `topic_id`: the id that the broker gives to the topic now.
    Raises LogGap, LogRewound: an
    operator has to decide; StoreUnavailable, LogUnavailable: retry; StoreCorrupt: the state in
    Redis is incomplete.
    """
    position = positions.take(client, topic, partition)
    low, high = log_ends.ends(settings, consumer, topic, partition, position.offset)
    positions.check(topic, partition, position, low, high, topic_id)
    if position.applied:
        positions.claim(client, topic, partition, topic_id)
        if topic == settings.interactions_topic and position.popularity.first < low:
            _log.warning(
                "popularity_incomplete",
                topic=topic,
                partition=partition,
                missing_offsets=low - position.popularity.first,
                remedy="python -m streams rebuild --wipe",
            )
        return Placement(topic, partition, topic_id, position, low, high)
    if low > position.offset:
        _check_archive(settings, topic, partition, low, topic_id)
    position = positions.begin(client, topic, partition, low, topic_id)
    if position.begins == low > 0 and not position.applied:
        _log.warning(
            "log_begins_late",
            topic=topic,
            partition=partition,
            begins=low,
            reason="retention removed the older records",
        )
    return Placement(topic, partition, topic_id, position, low, high)


def _check_archive(
    settings: Settings, topic: str, partition: int, low: int, topic_id: TopicId
) -> None:
    """Raises LogGap when the archive holds events older than the log's first offset `low`: then
    Redis is not new but has lost its data.
    """
    if topic != settings.interactions_topic:
        return
    from_log = "or run `python -m streams rebuild --from-log` to start without them"
    try:
        archive = Archive(settings.archive_url)
        former = archive.topic_id(topic, partition)
        is_same = former is None or topic_id is None or former == topic_id
        is_older = is_same and archive.holds_rows(topic, partition, low)
    except (ArchiveError, ConfigurationError) as error:
        raise LogGap(
            f"Redis holds nothing of {topic}/{partition}, the log begins at {low}, and the "
            f"archive, which may hold older events, cannot be read: {error}. Repair it, {from_log}"
        ) from None
    if is_older:
        raise LogGap(
            f"Redis holds nothing of {topic}/{partition}, the log begins at {low}, and the archive "
            f"at {masked_url(settings.archive_url)} holds older events. Run `python -m streams "
            f"rebuild` to read them, {from_log}; then start ingest again"
        )
