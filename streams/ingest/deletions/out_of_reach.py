"""Drops deletions that are older than every record of the log and the archive: nothing that they
exclude can be read again. This bounds their memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import pyarrow.compute as pc
import structlog

from core.contract.times import is_plausible
from core.deletions import KINDS, IdHasher, Kind, record_key
from core.errors import ArchiveError, ConfigurationError
from core.settings import Settings
from store.archive.archive import Archive
from store.log.reader import LogReader
from store.log.topics.ids import TopicIds
from store.state import keys
from store.state.apply import deletions
from store.state.connection import Client
from store.state.shards import Shards
from streams.ingest.deletions.publisher import Publisher

_log = structlog.get_logger(__name__)


def drop_out_of_reach(settings: Settings, shards: Shards) -> int:
    """Drop deletions older than the oldest record that can be read again, from Redis and from the
    topic; answers how many.

    While the archive is empty, or of another topic, nothing is dropped: ARCHIVE_URL may point to
    the wrong place. Raises LogUnavailable, StoreUnavailable, StoreCorrupt.
    """
    holders = {
        kind: [client for client in shards if deletions.count(client, kind)] for kind in KINDS
    }
    if not any(holders.values()):
        return 0
    with LogReader(settings, "reach") as reader:
        return sum(
            _drop(settings, clients, reader, kind) for kind, clients in holders.items() if clients
        )


def _drop(settings: Settings, clients: Sequence[Client], reader: LogReader, kind: Kind) -> int:
    """Drop the deletions of `kind` in the shards of `clients`."""
    topic = settings.users_topic if kind == "user" else settings.items_topic
    oldest = [_oldest_in_log(reader, topic)]
    if kind == "user":
        archived = _oldest_in_archive(settings)
        if archived is None:
            return 0
        oldest += [archived, _oldest_in_log(reader, settings.interactions_topic)]
    reach = min(oldest)
    dropped = 0
    for client in clients:
        scanned = deletions.scan(client, kind)
        old = {digest: place for digest, place in scanned if place.time < reach}
        if old:
            hasher, shard = IdHasher(settings.deletion_salt), keys.of(client).shard
            outdated = [record_key(kind, digest, place) for digest, place in old.items()]
            Publisher(settings, hasher, shard).publish([], outdated)
            deletions.forget(client, kind, old)
            dropped += len(old)
    if dropped:
        _log.info("deletions_dropped", kind=kind, deletions=dropped, older_than=reach)
    return dropped


def _oldest_in_log(reader: LogReader, topic: str) -> float:
    """Broker time (seconds) of the oldest message of a topic; infinity when it has none."""
    times = [inf]
    for partition in reader.partitions(topic):
        times += [message.timestamp()[1] / 1000 for message in reader.first(partition)]
    return _earliest(times)


def _oldest_in_archive(settings: Settings) -> float | None:
    """Broker time (seconds) of the oldest archived message; None: the archive is empty, unreadable,
    or of another topic.
    """
    topic = settings.interactions_topic
    topic_id = TopicIds(settings, [topic]).read()[topic]
    times: list[float] = []
    try:
        archive = Archive(settings.archive_url)
        for partition, end in archive.positions(topic).items():
            if topic_id is not None and archive.topic_id(topic, partition) not in (None, topic_id):
                return None
            for table in archive.read(topic, {partition: end}, ["broker_time"]):
                if table.num_rows:
                    times.append(pc.min(table["broker_time"]).as_py())
                    break
    except (ArchiveError, ConfigurationError) as error:
        _log.warning("archive_reach_unknown", error=str(error))
        return None
    return _earliest(times) if times else None


def _earliest(times: list[float]) -> float:
    """The minimum; 0 when a time is implausible, as the record may then be older than every
    deletion.
    """
    are_plausible = all(time == inf or is_plausible(time) for time in times)
    return min(times) if are_plausible else 0.0
