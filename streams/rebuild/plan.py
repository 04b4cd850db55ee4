"""Plans a rebuild and checks that it is safe, before it changes anything.

A plan is refused when Redis would lose events that nothing brings back: when the archive is empty,
is of another topic, or ends before the log starts. With `from_log` the archive is not read at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException

from core.errors import ArchiveError, ConfigurationError, LogGap, LogRewound, StoreCorrupt
from core.redaction import masked_url
from core.settings import Settings
from store.archive.archive import Archive
from store.log import client as log
from store.log import ends as log_ends
from store.log.access import permissions
from store.log.topics.ids import TopicId, TopicIds
from store.state import shard_numbers, wipe
from store.state.apply import counted_settings, halts, positions
from store.state.apply.positions import Position
from store.state.connection import Client
from store.state.shards import Shards


class Part(NamedTuple):
    """One partition.

    `redis`: its position in Redis now. `start`: the position at which the rebuild starts to read.
    [low, high): the offsets that the log holds. `archived`: the offset at which the archive ends
    (0: it is empty).
    """

    topic: str
    partition: int
    topic_id: TopicId
    redis: Position
    start: int
    low: int
    high: int
    archived: int

    @property
    def from_archive(self) -> int:
        """Offsets that the archive adds to Redis."""
        return max(0, self.archived - self.start)

    @property
    def from_log(self) -> int:
        """Offsets that ingest then reads from the log."""
        return max(0, self.high - max(self.low, self.archived, self.start))

    @property
    def missing(self) -> int:
        """Offsets between what Redis and the archive hold and the log's beginning."""
        return max(0, self.low - max(self.archived, self.start))


@dataclass
class Plan:
    """What a rebuild does.

    `keys`: how many keys a wipe deletes, by the first word of their names. `former`: other numbers
    of shards whose keys are among them. `lost`: one line for each partition that loses events.
    """

    wipe: bool
    from_log: bool
    source: str
    parts: list[Part]
    keys: dict[str, int] = field(default_factory=dict)
    former: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def archived(self) -> list[Part]:
        """The partitions of which the archive has events that Redis lacks."""
        return [part for part in self.parts if part.from_archive]

    @property
    def to_move(self) -> list[Part]:
        """The partitions whose position moves to the log's first offset."""
        return [
            part
            for part in self.parts
            if self.from_log and part.low > (0 if self.wipe else part.redis.offset)
        ]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.wipe or self.archived or self.to_move)

    def lines(self) -> Iterator[str]:
        """The plan as text, for an operator."""
        if self.wipe:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.keys.items())
            yield f"to delete: {sum(self.keys.values()):,} keys of Redis ({kinds or 'it is empty'})"
        for number in self.former:
            yield f"  among them all that was computed with REDIS_SHARDS={number}"
        yield f"rebuild from {self.source}"
        for part in self.parts:
            yield (
                f"  {part.topic}/{part.partition}: Redis stands at {part.redis.offset}, "
                f"archive [0, {part.archived}), "
                f"log [{part.low}, {part.high}); {part.from_archive} offsets come from the "
                f"archive, then {part.from_log} from the log"
            )
        for text in self.lost:
            yield f"WARNING: {text}"


def make(settings: Settings, shards: Shards, *, wipe_first: bool, from_log: bool) -> Plan:
    """Read from Redis, Kafka and the archive what they hold; change nothing.

    Raises ConfigurationError: Redis was made with other settings. ArchiveError: the archive is
    empty or damaged. LogGap, LogRewound: log, archive and Redis do not fit together.
    StoreUnavailable, LogUnavailable: retry. StoreCorrupt: wipe first.
    """
    wipe_first = wipe_first or wipe.interrupted(shards.first)
    if not wipe_first:
        shard_numbers.check(shards.first)
        counted_settings.compare(shards.first, settings)
    topics = [settings.interactions_topic, settings.items_topic, settings.users_topic]
    permissions.prepare(settings, permissions.of_rebuild)
    ids = TopicIds(settings, [*topics, settings.deletions_topic]).read()
    archive = None if from_log else Archive(settings.archive_url)
    archived = (
        {} if archive is None else _archived(settings, archive, ids[settings.interactions_topic])
    )
    with Shards(_as_counted(settings, shards.first)) as counted:
        parts = _parts(settings, counted, ids, archived, wipe_first)
    source = (
        "the log alone"
        if from_log
        else f"the archive at {masked_url(settings.archive_url)}, then from the log"
    )
    plan = Plan(wipe_first, from_log, source, parts)
    if wipe_first:
        numbers = wipe.numbers_to_wipe(shards.first)
        plan.former = [number for number in numbers if number != settings.redis_shards]
        plan.keys = wipe.count(settings)
    for part in parts:
        _check(settings, plan, part, archive)
    return plan


def _as_counted(settings: Settings, first: Client) -> Settings:
    """The settings with the REDIS_SHARDS of the state in Redis."""
    numbers = shard_numbers.present(first)
    if not numbers or settings.redis_shards in numbers:
        return settings
    return settings.model_copy(update={"redis_shards": numbers[0]})


def _archived(settings: Settings, archive: Archive, topic_id: TopicId) -> Mapping[int, int]:
    """By partition: the offset at which the archive ends. Raises ArchiveError, LogRewound."""
    topic = settings.interactions_topic
    ends = archive.positions(topic)
    if not ends:
        raise ArchiveError(
            f"the archive at {masked_url(settings.archive_url)} holds nothing of {topic}: is "
            f"ARCHIVE_URL right? Nothing was changed. "
            "`python -m streams rebuild --from-log` goes on without an archive"
        )
    for partition in ends:
        former = archive.topic_id(topic, partition)
        if former is not None and topic_id is not None and former != topic_id:
            raise LogRewound(
                f"the archive was written from {topic} with the id {former}, the broker has "
                f"{topic_id}: {_other_log(settings)}"
            )
    return ends


def _parts(
    settings: Settings,
    shards: Shards,
    ids: Mapping[str, TopicId],
    archived: Mapping[int, int],
    wipe_first: bool,
) -> list[Part]:
    """Every partition that ingest reads. Raises LogRewound, LogUnavailable, StoreError."""
    consumer = Consumer(log.consumer_config(settings, f"{settings.ingest_group}-rebuild"))
    parts = []
    try:
        for topic in (settings.interactions_topic, settings.items_topic, settings.users_topic):
            ends = archived if topic == settings.interactions_topic else {}
            numbers = _partitions(settings, consumer, topic)
            if topic != settings.items_topic and len(numbers) % settings.redis_shards:
                raise ConfigurationError(
                    f"{topic} has {len(numbers)} partitions, which is no multiple of "
                    f"REDIS_SHARDS={settings.redis_shards}. Nothing was changed. "
                    "`python -m streams topics` shows how to add partitions"
                )
            if surplus := sorted(ends.keys() - set(numbers)):
                raise LogRewound(
                    f"the archive has the partitions {surplus} of {topic}, the broker has "
                    f"not: {_other_log(settings)}"
                )
            for number in numbers:
                client, end = shards.of_partition(topic, number), ends.get(number, 0)
                redis = _position(client, topic, number, wipe_first)
                start = redis.offset if redis.applied and not wipe_first else 0
                low, high = log_ends.ends(settings, consumer, topic, number, max(redis.offset, end))
                if not wipe_first:
                    positions.check_topic(topic, number, redis, high, ids[topic])
                if end > high:
                    raise LogRewound(
                        f"{topic}/{number}: the archive reaches to {end}, the log ends at "
                        f"{high}: {_other_log(settings)}"
                    )
                parts.append(Part(topic, number, ids[topic], redis, start, low, high, end))
    finally:
        consumer.close()
    return parts


def _partitions(settings: Settings, consumer: Consumer, topic: str) -> list[int]:
    try:
        return sorted(
            consumer.list_topics(topic, timeout=settings.kafka_timeout_s).topics[topic].partitions
        )
    except KafkaException as error:
        raise log.unreachable(settings, f"listing the partitions of {topic}", error) from error


def _position(client: Client, topic: str, partition: int, wipe_first: bool) -> Position:
    """The position in Redis; 0 where it cannot be read and a wipe will delete it."""
    try:
        if not wipe_first:
            halts.check(client, topic, partition)
        return positions.read(client, topic, partition)
    except StoreCorrupt:
        if wipe_first:
            return Position(0, None)
        raise


def _check(settings: Settings, plan: Plan, part: Part, archive: Archive | None) -> None:
    """Note a gap in the plan if the options accept it. Raises LogGap otherwise."""
    where, is_events = f"{part.topic}/{part.partition}", part.topic == settings.interactions_topic
    in_redis = part.redis.applied and part.redis.begins < part.low
    in_archive = (
        archive is not None and is_events and archive.holds_rows(part.topic, part.partition)
    )
    if not part.missing or not (in_redis or in_archive or plan.from_log):
        return
    if plan.from_log or (plan.wipe and not is_events):
        republish = "" if is_events else "; publish the catalogue and the profiles again"
        plan.lost.append(
            f"{where}: the log begins at {part.low}: nothing brings back up to "
            f"{part.missing} records before that{republish}"
        )
        return
    remedy = (
        "--wipe --from-log` to count what the log holds"
        if plan.wipe
        else "--from-log` to go on without them"
    )
    raise LogGap(
        f"{where}: Redis stands at {part.redis.offset} and the archive reaches to "
        f"{part.archived}, but the log begins at {part.low}: "
        f"{part.missing} offsets are in neither. Nothing was changed. Restore the newer "
        f"files of the archive from a backup, or run "
        f"`python -m streams rebuild {remedy}"
    )


def _other_log(settings: Settings) -> str:
    return (
        "it is the archive of another log. Nothing was changed. Set ARCHIVE_URL to the "
        "archive of this log, or run "
        f"`python -m streams rebuild --wipe --from-log` to count what "
        f"{settings.interactions_topic} holds"
    )
