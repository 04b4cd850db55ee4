"""Computes and reads the popularity of items with forward decay.

The weight of an event grows with its time, so stored sums need no update as they age (Cormode,
Shkapenyuk, Srivastava, Xu: Forward Decay, ICDE 2009). An event at time t has the weight
w * 2^((t - L) / H) with a fixed landmark L. The decayed popularity at a later time is the stored
sum times 2^(-(now - L) / H), so a ranking needs no decay.

Each shard has the sums of the events of its users. Readers add them up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from heapq import nlargest
from typing import Any

from core.settings import Settings
from models.popular import MOST
from store.state import keys
from store.state.connection import Client, named_errors

LANDMARK = 1_735_689_600.0
"""2025-01-01 in seconds since 1970.

With half-lives of 10 days or more, growth from 1970 to 2085 stays within a float64.
"""
Top = dict[str, list[tuple[str, float]]]
"""Name -> the most popular items with their scores, best first."""
_DAY = 86_400.0
_REMOVED_AT_ONCE = 500
"""Members in one step of `remove_below`, which takes Redis under a millisecond."""
_REMOVE = """#!lua flags=allow-oom
local range = redis.call('ZRANGE', KEYS[1], 0, ARGV[1], 'BYSCORE',
    'LIMIT', 0, ARGV[2], 'WITHSCORES')
if #range == 0 then return 0 end
local members = {}
for i = 1, #range, 2 do members[#members + 1] = range[i] end
redis.call('ZREM', KEYS[1], unpack(members))
redis.call('HINCRBYFLOAT', KEYS[2], ARGV[3], range[#range])
return #members
"""
"""A script, because a score may rise between a read and the removal."""
HOUR = 3_600.0
"""Seconds for which growth is constant."""
_STEPS = 128
"""Growth is rounded to 7 bits (an error under 0.6%). So sums of it are exact in a float64, in any
order, over about 30 half-lives.
"""


def growth(timestamp: float, half_life_days: float) -> float:
    """2^((timestamp - LANDMARK) / half-life), by the whole hour, rounded to 7 significant bits."""
    return _growth_of_hour(int(timestamp // HOUR), half_life_days)


@lru_cache(maxsize=100_000)
def _growth_of_hour(hour: int, half_life_days: float) -> float:
    mantissa, exponent = math.frexp(2.0 ** ((hour * HOUR - LANDMARK) / (half_life_days * _DAY)))
    return math.ldexp(round(mantissa * _STEPS) / _STEPS, exponent)


def decay_factor(settings: Settings, now: float) -> float:
    """The factor from a stored score to the decayed weight of events at time `now`."""
    return 1.0 / growth(now, settings.popularity_half_life_days)


def top(client: Client, names: Sequence[str], count: int = MOST) -> Top:
    """By name, the `count` most popular items of one shard with their stored scores, best first.

    `names`: use cases and `unlabelled`. Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("reading popularity"):
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.zrevrange(keys.of(client).popular(name), 0, count - 1, withscores=True)
        replies = pipe.execute()
    return {
        name: [(member.decode(), float(score)) for member, score in reply]
        for name, reply in zip(names, replies, strict=True)
    }


def merged(tops: Sequence[Top], count: int = MOST) -> Top:
    """By name, the `count` most popular items of all shards, from the top of each.

    Ties are in the order of Redis. A sum lacks what the item has in shards where it is not in the
    top: in each of these at most the lowest score of that top. So no item is missing whose sum
    exceeds the lowest scores of all tops added up. Users are divided by a hash, so the rankings of
    the shards are much the same, and what is missing is at the end of the list.
    """
    if len(tops) == 1:
        return tops[0]
    ranked: Top = {}
    for name in tops[0]:
        sums: dict[str, float] = {}
        for of_shard in tops:
            for item_id, score in of_shard[name]:
                sums[item_id] = sums.get(item_id, 0.0) + score
        best = nlargest(count, ((score, item_id) for item_id, score in sums.items()))
        ranked[name] = [(item_id, score) for score, item_id in best]
    return ranked


def count(client: Client, name: str) -> int:
    """Items of one shard that have a popularity under `name`.

    Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("counting the items of a popularity"):
        items: Any = client.zcard(keys.of(client).popular(name))
    return int(items)


def shares_of_item(
    clients: Iterable[Client], names: Sequence[str], item_id: str
) -> dict[str, float]:
    """Name -> popularity of an item as a share of the most popular one's, of the names it is under.

    `clients`: of all shards. Raises StoreUnavailable, StoreCorrupt.
    """
    scores: dict[str, float] = {}
    tops: list[Top] = []
    for client in clients:
        shard = keys.of(client)
        most = 1 if shard.shards == 1 else MOST
        with named_errors("reading the popularity of an item"):
            pipe: Any = client.pipeline(transaction=False)
            for name in names:
                pipe.zscore(shard.popular(name), item_id)
                pipe.zrevrange(shard.popular(name), 0, most - 1, withscores=True)
            replies = pipe.execute()
        tops.append(dict(zip(names, replies[1::2], strict=True)))
        for name, score in zip(names, replies[::2], strict=True):
            if score is not None:
                scores[name] = scores.get(name, 0.0) + float(score)
    best = merged(tops, 1)
    return {name: score / float(best[name][0][1]) for name, score in scores.items()}


def remove_below(client: Client, settings: Settings, names: Sequence[str], now: float) -> int:
    """Remove the items of one shard whose weight at time `now` is below its share of
    POPULARITY_MIN_WEIGHT: so an item with this weight in all shards together stays in one at least.

    An item that is touched again starts from zero, so its scores may lack less than this weight in
    all, and `popularity:removed` of each shard has the most that one of its scores may lack.
    Returns the number of removed members. Raises StoreUnavailable: what was removed stays removed.
    """
    shard = keys.of(client)
    highest = settings.popularity_min_weight / shard.shards / decay_factor(settings, now)
    removed = 0
    with named_errors("removing items of low popularity"):
        for name in names:
            arguments = (f"({highest!r}", _REMOVED_AT_ONCE, name)
            while count := _remove(client, shard.popular(name), arguments):
                removed += count
    return removed


def _remove(client: Any, key: str, arguments: tuple[str | int, ...]) -> int:
    return int(client.eval(_REMOVE, 2, key, keys.of(client).popularity_removed, *arguments))
