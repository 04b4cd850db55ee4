"""The oracle: a plain fold of the log in Python, as slow and as obvious as it can be. Redis must equal it exactly."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from fractions import Fraction
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from redis import Redis

from core import codec
from core.errors import BadEvent
from core.experiments import point
from core.settings import Settings
from core.types import Interaction
from store import log, popularity


def read_log(settings: Settings, topic: str, partition: int, upto: int) -> list[Any]:
    """Every message of a partition below offset `upto`, from the log's beginning."""
    consumer = Consumer(log.consumer_config(settings, "oracle"))
    messages: list[Any] = []
    consumer.assign([TopicPartition(topic, partition, 0)])
    deadline = time.monotonic() + 30
    while upto > 0 and (not messages or messages[-1].offset() < upto - 1):
        assert time.monotonic() < deadline, f"{topic}/{partition}: Redis stands at {upto}, but the log ends before"
        for message in consumer.consume(5000, 0.1):
            assert message.error() is None, message.error()
            messages.append(message)
    consumer.close()
    return [message for message in messages if message.offset() < upto]


class Oracle:
    """What Redis must hold after the log up to `positions` (partition -> offset)."""

    def __init__(self, settings: Settings, positions: dict[int, int], deleted: dict[str, float] | None = None) -> None:
        self.users: dict[str, dict[str, str]] = {}
        self.histories: dict[str, list[str]] = {}
        self.popular: dict[str, dict[str, float]] = {}
        self.trending: dict[str, dict[str, float]] = {}
        self.experiments: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.dead: set[tuple[int, int]] = set()
        self.counted = 0
        self.duplicates = 0
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        first_seen: dict[str, int] = {}
        histories: dict[str, list[str]] = defaultdict(list)
        scores: dict[str, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
        trending: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        now = time.time()
        for partition, upto in positions.items():
            latest: dict[str, int] = {}
            for message in read_log(settings, settings.interactions_topic, partition, upto):
                broker_time = message.timestamp()[1] / 1000
                try:
                    event = codec.decode_interaction(message.value(), broker_time, settings.use_cases)
                except BadEvent:
                    self.dead.add((partition, message.offset()))
                    continue
                before = latest.get(event.event_id)
                latest[event.event_id] = message.offset()
                if before is not None and message.offset() - before <= settings.dedup_window:
                    self.duplicates += 1
                    continue
                weight = settings.use_cases.weight(event.event_type, event.value, event.use_case)
                if weight:
                    growth = popularity.growth(event.timestamp, settings.popularity_half_life_days)
                    name = event.use_case or "unlabelled"
                    scores[name][event.item_id] += Fraction(weight) * Fraction(growth)
                    happened = min(event.timestamp, broker_time)
                    for length, window in ((300, 3600), (3600, 7 * 24 * 3600)):
                        begin = int(happened // length) * length
                        if broker_time - happened < window and begin + length + window + 3600 > now:
                            trending[f"{name}:{length}:{begin}"][event.item_id] += weight
                shown = _shown(settings, event)
                if shown:
                    self.experiments[f"{shown}:events"][f"ev:{event.event_type}"] += 1
                if broker_time <= (deleted or {}).get(event.user_id, -1):
                    continue
                self.counted += 1
                weight = settings.use_cases.weight(event.event_type, event.value)
                if shown and weight and event.event_type in (settings.experiments.by_id[shown].outcomes or [event.event_type]):
                    self.experiments[f"{shown}:outcomes"][event.user_id] += weight
                counts[event.user_id][event.event_type] += 1
                first_seen.setdefault(event.user_id, int(event.timestamp))
                kind = event.event_type if event.value is None else f"{event.event_type}={_plain(event.value)}"
                histories[event.user_id].append(f"{int(event.timestamp)} {kind} {event.item_id}")
        for user_id, by_type in counts.items():
            self.users[user_id] = {
                "events": str(sum(by_type.values())),
                "first_seen": str(first_seen[user_id]),
                **{f"ev:{name}": str(count) for name, count in by_type.items()},
            }
        self.histories = {user_id: lines[-settings.history_cap :] for user_id, lines in histories.items()}
        self.popular = {name: {item: float(score) for item, score in items.items()} for name, items in scores.items()}
        self.trending = {bucket: dict(items) for bucket, items in trending.items()}


def _shown(settings: Settings, event: Interaction) -> str | None:
    """Id of the variant whose answer led to an event, if its user takes part and was drawn into that variant."""
    _, dot, told = (event.recommendation_id or "").partition(".")
    for experiment in settings.experiments.all:
        low, high = experiment.users
        if dot and low <= point("", event.user_id) < high and experiment.variant_of(event.user_id).id == told:
            return told
    return None


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def positions(redis: Redis, settings: Settings) -> dict[int, int]:
    """Partition -> position of the interactions topic, as Redis has it."""
    return {
        partition: int(redis.hget(f"ingest:{settings.interactions_topic}:{partition}", "position") or 0)  # type: ignore[arg-type]
        for partition in range(settings.topic_partitions)
    }


def popularity_positions(redis: Redis, settings: Settings) -> dict[int, int]:
    """Partition -> the offset below which every event is in the popularities."""
    return {
        partition: int(redis.hget(f"ingest:{settings.interactions_topic}:{partition}", "popularity_first") or 0)  # type: ignore[arg-type]
        for partition in range(settings.topic_partitions)
    }


def in_redis(redis: Any, settings: Settings) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Counters, histories, popularities and buckets of what is trending as Redis has them, every key of ours looked at."""
    users, histories, popular, trending = {}, {}, {}, {}
    for raw in sorted(redis.scan_iter(count=1000)):
        key = raw.decode()
        room, _, rest = key.partition(":")
        if room in ("popular", "trending"):
            (popular if room == "popular" else trending)[rest] = {
                item.decode(): score for item, score in redis.zrange(key, 0, -1, withscores=True)
            }
        elif room == "user" and rest.endswith(":history"):
            histories[rest.removesuffix(":history")] = [line.decode() for line in redis.lrange(key, -settings.history_cap, -1)]
        elif room == "user" and not rest.endswith((":profile", ":als")):  # vectors are a cache, looked at by tests/live
            users[rest] = {name.decode(): value.decode() for name, value in redis.hgetall(key).items()}
    return users, histories, popular, trending


def experiments(redis: Any) -> dict[str, Any]:
    """What is counted of experiments' outcomes in Redis."""
    events = {key: {name.decode(): float(count) for name, count in redis.hgetall(key).items()} for key in redis.keys("experiment:*:events")}
    users = {
        key: {user.decode(): weight for user, weight in redis.zrange(key, 0, -1, withscores=True)}
        for key in redis.keys("experiment:*:outcomes")
    }
    return {key.decode().removeprefix("experiment:"): numbers for key, numbers in {**events, **users}.items()}


def assert_equal(redis: Redis, settings: Settings, deleted: dict[str, float] | None = None) -> Oracle:
    """Redis equals the fold of the log up to its positions: every counter, history, popularity and bucket of what is trending."""
    oracle = Oracle(settings, positions(redis, settings), deleted)
    users, histories, popular, trending = in_redis(redis, settings)
    assert users == oracle.users
    assert histories == oracle.histories
    assert popular == oracle.popular
    assert experiments(redis) == oracle.experiments
    assert trending == oracle.trending
    assert all(0 < redis.ttl(f"trending:{bucket}") < 8 * 24 * 3600 for bucket in trending)  # type: ignore[operator]
    return oracle


def dead_letters(settings: Settings) -> list[tuple[int, int, str]]:
    """(partition, offset, code) of every dead letter of the interactions topic, repeats included."""
    found = []
    consumer = Consumer(log.consumer_config(settings, "oracle") | {"enable.partition.eof": True})
    consumer.assign([TopicPartition(settings.dlq_topic, partition, 0) for partition in range(settings.topic_partitions)])
    unread = settings.topic_partitions
    while unread:
        for message in consumer.consume(1000, 0.1):
            if message.error() is not None:
                unread -= 1  # the only error there is: the partition's end
                continue
            headers = {name: value.decode() for name, value in message.headers()}  # type: ignore[union-attr]
            if headers["topic"] == settings.interactions_topic:
                found.append((int(headers["partition"]), int(headers["offset"]), headers["code"]))
    consumer.close()
    return found
