"""Reads the state in Redis key by key."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from redis import Redis

from core.settings import Settings
from core.types import Item, User


class State(NamedTuple):
    """The keys in Redis that are computed from the log, by id or by name.

    `expiries`: seconds until each bucket of `trending` expires. `removed`: by popularity, the most
    that a score may lack because items of low weight were removed. `idle`: the counters of users
    who left Redis.
    """

    users: dict[str, dict[str, str]]
    histories: dict[str, list[str]]
    profiles: dict[str, User]
    items: dict[str, Item]
    popular: dict[str, dict[str, float]]
    trending: dict[str, dict[str, float]]
    experiments: dict[str, dict[str, float]]
    expiries: dict[str, int]
    removed: dict[str, float]
    idle: dict[str, dict[str, str]]


def read_state(redis: Any, settings: Settings) -> State:
    """Read every key that is computed from the log, without caches (vectors) and positions."""
    state = State({}, {}, {}, {}, {}, {}, {}, {}, {}, {})
    for raw in sorted(redis.scan_iter(count=1000)):
        key = raw.decode()
        kind, _, rest = key.partition(":")
        if kind == "popular":
            state.popular[rest] = _scores(redis, key)
        elif key == "popularity:removed":
            state.removed.update(
                {name.decode(): float(most) for name, most in redis.hgetall(key).items()}
            )
        elif kind == "trending":
            state.trending[rest] = _scores(redis, key)
            state.expiries[rest] = redis.ttl(key)
        elif kind == "user":
            _read_user(redis, settings, state, *rest.partition(":")[::2])
        elif kind == "experiment" and rest.endswith(":events"):
            state.experiments[rest] = {
                name.decode(): float(count) for name, count in redis.hgetall(key).items()
            }
        elif kind == "experiment" and rest.endswith(":outcomes"):
            state.experiments[rest] = _scores(redis, key)
    state.items.update(
        {
            name.decode(): msgspec.json.decode(data, type=Item)
            for name, data in redis.hgetall("items").items()
        }
    )
    return state


def _read_user(redis: Any, settings: Settings, state: State, escaped: str, part: str) -> None:
    user_id = unquote(escaped)
    key = f"user:{escaped}:{part}" if part else f"user:{escaped}"
    if part == "":
        state.users[user_id] = {
            name.decode(): value.decode() for name, value in redis.hgetall(key).items()
        }
    elif part == "idle":
        state.idle[user_id] = {
            name.decode(): value.decode() for name, value in redis.hgetall(key).items()
        }
    elif part == "history":
        state.histories[user_id] = [
            line.decode() for line in redis.lrange(key, -settings.history_cap, -1)
        ]
    elif part == "profile":
        state.profiles[user_id] = msgspec.json.decode(redis.get(key), type=User)


def _scores(redis: Any, key: str) -> dict[str, float]:
    return {member.decode(): score for member, score in redis.zrange(key, 0, -1, withscores=True)}


def positions(redis: Redis, settings: Settings, topic: str | None = None) -> dict[int, int]:
    """Partition -> position of a topic (None: interactions) in Redis; 0 without a position."""
    return _numbers(redis, settings, topic or settings.interactions_topic, "position")


def popularity_positions(redis: Redis, settings: Settings) -> dict[int, int]:
    """Partition -> the offset below which popularity has every event."""
    return _numbers(redis, settings, settings.interactions_topic, "popularity_first")


def _numbers(redis: Any, settings: Settings, topic: str, field: str) -> dict[int, int]:
    prefix = f"ingest:{topic}:"
    stored = {int(key.decode().removeprefix(prefix)) for key in redis.keys(prefix + "*")}
    partitions = sorted(stored | set(range(settings.topic_partitions)))
    return {
        partition: int(redis.hget(f"{prefix}{partition}", field) or 0) for partition in partitions
    }
