"""Shows a user, an item, positions, the bundle or the memory of Redis: `streams inspect`."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaException

from core.deletions import IdHasher
from core.errors import LogUnavailable
from core.murmur2 import partitions_of
from core.settings import Settings
from core.types import LiveVector
from engines import router
from models.registry import Registry
from store.archive.archive import Archive
from store.log import client as log
from store.log import ends as log_ends
from store.log.access import permissions
from store.log.topics import partitions
from store.state import keys, shard_numbers
from store.state.apply import deletions, positions
from store.state.entities import catalogue, idle_users, popularity, trending, users
from store.state.inspection import memory as state_memory
from store.state.live_shards import LiveShards
from store.state.shards import Shards
from streams.inspection import routing

KAFKA_S = 2.0
"""Seconds to wait for Kafka, where most of the answer comes from Redis."""
FOREIGN = (
    "events of this user came through foreign_partitions, not only through partition: a "
    "producer uses another partitioner or another key, "
    "and an event that is sent through both counts twice; see docs/operations.md, "
    "Producers with another partitioner"
)


def user(settings: Settings, user_id: str) -> dict[str, Any]:
    """The whole state of a user, and the engine that answers the user.

    Raises StoreUnavailable; ConfigurationError: the state is of another REDIS_SHARDS.
    """
    shards = _shards(settings)
    client = shards.of_user(user_id)
    state = users.read(client, user_id, settings.history_cap)
    deletion = deletions.lookup(
        client, "user", [IdHasher(settings.deletion_salt)("user", user_id)]
    )[0]
    variant = settings.experiments.assign(user_id, None)
    settings = settings.with_overrides(variant.overrides) if variant else settings
    limits = routing.thresholds(settings)
    engine = router.route(state.events, limits)
    foreign = users.foreign_partitions(client, user_id)
    return {
        "user_id": user_id,
        **({"shard": keys.of(client).shard} if len(shards) > 1 else {}),
        "partition": _partition(settings, user_id),
        "foreign_partitions": foreign,
        "partition_note": FOREIGN if foreign else None,
        "keys": list(keys.of(client).all_of_user(user_id)),
        "events": state.events,
        "counts": dict(sorted(state.counts.items(), key=lambda entry: -entry[1])),
        "idle": idle_users.counters(client, user_id) or None,
        "first_seen": state.first_seen,
        "deleted_at": None if deletion is None else deletion.time,
        "profile": None if state.profile is None else msgspec.to_builtins(state.profile),
        "als_vector": _vector(state.als),
        "variant": variant and variant.label,
        "segment": router.segment(state.events, settings),
        "engine": engine,
        "why": f"{state.events} events; {limits.explained}" + routing.obstacles(settings, engine),
        "history": [msgspec.to_builtins(event) for event in state.history],
    }


def item(settings: Settings, item_id: str) -> dict[str, Any]:
    """A catalogue entry, and its popularity by use case: now, last hour, last day, last week.

    Now: as a share of the most popular item's. In a window: the weight of the events in it.
    Raises StoreUnavailable; ConfigurationError: the state is of another REDIS_SHARDS.
    """
    shards = _shards(settings)
    entry = catalogue.item(shards.first, item_id)
    names = (*settings.use_cases.by_name, keys.POPULAR_UNLABELLED)
    shares = popularity.shares_of_item(shards, names, item_id)
    return {
        "item_id": item_id,
        "in_catalogue": entry is not None,
        "item": msgspec.to_builtins(entry),
        "new_item": _new_item(settings, shards, item_id),
        "popularity_now": {name: float(f"{share:.3g}") for name, share in shares.items()},
        **{
            f"last_{window}": weights
            for window, weights in trending.of_item(shards, names, item_id, time.time()).items()
        },
    }


def partition_positions(settings: Settings) -> list[dict[str, Any]]:
    """For each partition, the log's ends and the positions of Redis and the archive.

    Raises LogUnavailable, StoreUnavailable, ArchiveError.
    """
    permissions.prepare(settings, permissions.of_positions)
    shards = _shards(settings)
    consumer = Consumer(log.consumer_config(settings, f"{settings.ingest_group}-inspect"))
    rows = []
    try:
        for topic in (settings.interactions_topic, settings.items_topic, settings.users_topic):
            try:
                numbers = sorted(
                    consumer.list_topics(topic, timeout=settings.kafka_timeout_s)
                    .topics[topic]
                    .partitions
                )
            except KafkaException as error:
                raise log.unreachable(settings, "listing topics", error) from error
            archived = (
                Archive(settings.archive_url).positions(topic)
                if topic == settings.interactions_topic
                else {}
            )
            for partition in numbers:
                client = shards.of_partition(topic, partition)
                redis = positions.read(client, topic, partition).offset
                archive = (
                    archived.get(partition, 0) if topic == settings.interactions_topic else None
                )
                low, high = log_ends.ends(
                    settings, consumer, topic, partition, max(redis, archive or 0)
                )
                rows.append(
                    {
                        "topic": topic,
                        "partition": partition,
                        "log_begins": low,
                        "log_ends": high,
                        "redis": redis,
                        "redis_lag": high - redis,
                        "archive": archive,
                        "archive_lag": None if archive is None else high - archive,
                    }
                )
    finally:
        consumer.close()
    return rows


def model(settings: Settings) -> dict[str, Any]:
    """The live bundle's manifest, without its file list. Raises ModelMissing, ModelCorrupt."""
    registry = Registry(settings.models_path)
    live = registry.current()
    manifest = None if live is None else msgspec.to_builtins(registry.manifest(live))
    return {
        "live": live,
        "versions": registry.versions(),
        "routing": routing.thresholds(settings).explained,
        "manifest": manifest,
    }


def memory(settings: Settings, days: float) -> dict[str, Any]:
    """The memory of Redis by kind of key, and a forecast from the users' growth in `days`.

    In a cluster `used_bytes` is that of the fullest of the `servers`, and days are counted until
    the first one is full.
    Raises StoreUnavailable, StoreMisconfigured.
    """
    with Shards(settings) as shards:
        measured = state_memory.measure(shards, settings.history_cap, days)
    left = measured.days_left
    return {
        "used_bytes": measured.used,
        "maxmemory_bytes": measured.limit or None,
        "users": measured.users,
        "bytes_per_user": round(measured.bytes_per_user),
        "growth_bytes_per_day": round(measured.growth_per_day),
        "days_until_maxmemory": None if left is None else round(left, 1),
        "kinds": [
            {
                "kind": usage.kind,
                "keys": usage.keys,
                "bytes_each": round(usage.bytes_each),
                "bytes": usage.bytes,
            }
            for usage in measured.kinds
        ],
    } | (
        {
            "servers": [
                {"server": name, "used_bytes": used, "maxmemory_bytes": limit or None}
                for name, (used, limit) in measured.servers.items()
            ]
        }
        if measured.servers
        else {}
    )


def _shards(settings: Settings) -> Shards:
    """The shards, which have the state. Raises ConfigurationError, StoreUnavailable."""
    shards = Shards(settings)
    shard_numbers.check(shards.first)
    return shards


def _partition(settings: Settings, user_id: str) -> int | None:
    """The partition of the user's events by murmur2; None while Kafka does not answer."""
    try:
        count = partitions.count(settings, settings.interactions_topic, KAFKA_S)
    except LogUnavailable:
        return None
    return int(partitions_of([user_id.encode()], count)[0])


def _vector(als: LiveVector | None) -> dict[str, Any] | None:
    """The stored ALS vector, without its numbers; None if there is none.

    Readers use it if `as_of` is the user's number of events.
    """
    return (
        None
        if als is None
        else {"version": als.version, "as_of": als.as_of, "factors": len(als.vector) // 4}
    )


def _new_item(settings: Settings, clients: Shards, item_id: str) -> dict[str, Any] | None:
    """For a new item: the users in its lists, and how many there were as its factors were made."""
    shards = LiveShards(clients, settings.history_cap, settings.young_item_users)
    try:
        status = shards.factors_status([item_id])[0]
    finally:
        shards.close()
    return {"users": status.users, "factors_from": status.as_of} if status.users else None
