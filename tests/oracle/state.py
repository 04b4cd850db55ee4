"""Reads the state in Redis key by key, and adds up what the shards hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
from redis import Redis

from core.settings import Settings
from core.types import Item, User
from store.state import keys
from store.state.shards import Shards, shard_of_partition, shard_of_user

Source = Redis | Shards
"""The state: a client of the only shard, or the clients of all shards."""


class State(NamedTuple):
    """The keys in Redis that are computed from the log, by id or by name.

    `expiries`: seconds until each bucket of `trending` expires. `removed`: by popularity, the most
    that a score may lack because items of low weight were removed. `idle`: the counters of users
    who left Redis. `misplaced`: keys in a shard that must not have them.
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
    misplaced: list[str]


def read_state(source: Any, settings: Settings) -> State:
    """Read every key that is computed from the log, without caches (vectors) and positions."""
    state = State({}, {}, {}, {}, {}, {}, {}, {}, {}, {}, [])
    for client in clients_of(source):
        _read_shard(client, settings, state)
    return state


def clients_of(source: Any) -> Sequence[Any]:
    """The client of each shard."""
    return list(source) if isinstance(source, Shards) else [source]


def _read_shard(client: Any, settings: Settings, state: State) -> None:
    names = keys.of(client)
    for raw in sorted(client.scan_iter(names.prefix + "*", count=1000)):
        key = raw.decode()
        kind, _, rest = names.without_prefix(raw).partition(":")
        if kind == "popular":
            _add(state.popular, rest, _scores(client, key))
        elif kind == "popularity":
            for name, most in client.hgetall(key).items():
                state.removed[name.decode()] = state.removed.get(name.decode(), 0) + float(most)
        elif kind == "trending":
            _add(state.trending, rest, _scores(client, key))
            left = client.ttl(key)
            state.expiries[rest] = min(left, state.expiries.get(rest, left))
        elif kind == "user":
            user_id, _, part = rest.partition(":")
            _read_user(client, settings, state, key, unquote(user_id), part)
            if shard_of_user(unquote(user_id), names.shards) != names.shard:
                state.misplaced.append(key)
        elif kind == "experiment" and rest.endswith(":events"):
            _add(state.experiments, rest, _numbers(client, key))
        elif kind == "experiment" and rest.endswith(":outcomes"):
            _add(state.experiments, rest, _scores(client, key))
        elif kind == "items" and not rest:
            state.items.update(
                {
                    name.decode(): msgspec.json.decode(data, type=Item)
                    for name, data in client.hgetall(key).items()
                }
            )
            if names.shard:
                state.misplaced.append(key)


def _read_user(
    client: Any, settings: Settings, state: State, key: str, user_id: str, part: str
) -> None:
    if part == "":
        state.users[user_id] = _fields(client, key)
    elif part == "idle":
        state.idle[user_id] = _fields(client, key)
    elif part == "history":
        state.histories[user_id] = [
            line.decode() for line in client.lrange(key, -settings.history_cap, -1)
        ]
    elif part == "profile":
        state.profiles[user_id] = msgspec.json.decode(client.get(key), type=User)


def _add(sums: dict[str, dict[str, float]], name: str, scores: Mapping[str, float]) -> None:
    """Add the scores of a shard, without rounding."""
    total = sums.setdefault(name, {})
    for member, score in scores.items():
        total[member] = float(Fraction(total.get(member, 0.0)) + Fraction(score))


def _fields(client: Any, key: str) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in client.hgetall(key).items()}


def _numbers(client: Any, key: str) -> dict[str, float]:
    return {name: float(value) for name, value in _fields(client, key).items()}


def _scores(client: Any, key: str) -> dict[str, float]:
    return {member.decode(): score for member, score in client.zrange(key, 0, -1, withscores=True)}


def positions(source: Source, settings: Settings, topic: str | None = None) -> dict[int, int]:
    """Partition -> position of a topic (None: interactions) in Redis; 0 without a position."""
    return _positions(source, settings, topic or settings.interactions_topic, "position")


def popularity_positions(source: Source, settings: Settings) -> dict[int, int]:
    """Partition -> the offset below which popularity has every event."""
    return _positions(source, settings, settings.interactions_topic, "popularity_first")


def _positions(source: Any, settings: Settings, topic: str, field: str) -> dict[int, int]:
    """Partition -> a number beside its position. Raises AssertionError: one in a wrong shard."""
    numbers = dict.fromkeys(range(settings.topic_partitions), 0)
    clients = clients_of(source)
    for shard, client in enumerate(clients):
        prefix = f"{keys.of(client).prefix}ingest:{topic}:"
        for raw in client.keys(prefix + "*"):
            partition = int(raw.decode().removeprefix(prefix))
            right = shard_of_partition(settings, topic, partition) if len(clients) > 1 else 0
            assert shard == right, f"{raw!r} must be in shard {right}"
            numbers[partition] = int(client.hget(raw, field) or 0)
    return dict(sorted(numbers.items()))
