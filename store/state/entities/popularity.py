"""Computes and reads the popularity of items with forward decay.

The weight of an event grows with its time, so stored sums need no update as they age (Cormode,
Shkapenyuk, Srivastava, Xu: Forward Decay, ICDE 2009). An event at time t has the weight
w * 2^((t - L) / H) with a fixed landmark L. The decayed popularity at a later time is the stored
sum times 2^(-(now - L) / H), so a ranking needs no decay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import redis

from core.settings import Settings
from models.popular import MOST
from store.state import keys
from store.state.connection import named_errors

LANDMARK = 1_735_689_600.0
"""2025-01-01 in seconds since 1970.

With half-lives of 10 days or more, growth from 1970 to 2085 stays within a float64.
"""
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


def top(
    client: redis.Redis, names: Sequence[str], count: int = MOST
) -> dict[str, list[tuple[str, float]]]:
    """By name, the `count` most popular items with their stored scores, best first.

    `names`: use cases and `unlabelled`. Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("reading popularity"):
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.zrevrange(keys.ONLY.popular(name), 0, count - 1, withscores=True)
        replies = pipe.execute()
    return {
        name: [(member.decode(), float(score)) for member, score in reply]
        for name, reply in zip(names, replies, strict=True)
    }


def count(client: redis.Redis, name: str) -> int:
    """Items that have a popularity under `name`. Raises StoreUnavailable, StoreCorrupt."""
    with named_errors("counting the items of a popularity"):
        items: Any = client.zcard(keys.ONLY.popular(name))
    return int(items)


def shares_of_item(client: redis.Redis, names: Sequence[str], item_id: str) -> dict[str, float]:
    """Name -> popularity of an item as a share of the most popular one's, of the names it is under.

    Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors("reading the popularity of an item"):
        pipe: Any = client.pipeline(transaction=False)
        for name in names:
            pipe.zscore(keys.ONLY.popular(name), item_id)
            pipe.zrevrange(keys.ONLY.popular(name), 0, 0, withscores=True)
        replies = pipe.execute()
    return {
        name: float(score) / float(best[0][1])
        for name, score, best in zip(names, replies[::2], replies[1::2], strict=True)
        if score is not None
    }


def remove_below(client: redis.Redis, settings: Settings, names: Sequence[str], now: float) -> int:
    """Remove the items whose weight at time `now` is below POPULARITY_MIN_WEIGHT.

    An item that is touched again starts from zero, so a score may lack less than this weight, and
    `popularity:removed` has the most that one may lack. Returns the number of removed members.
    Raises StoreUnavailable: what was removed stays removed.
    """
    highest = settings.popularity_min_weight / decay_factor(settings, now)
    removed = 0
    with named_errors("removing items of low popularity"):
        for name in names:
            arguments = (f"({highest!r}", _REMOVED_AT_ONCE, name)
            while count := _remove(client, keys.ONLY.popular(name), arguments):
                removed += count
    return removed


def _remove(client: Any, key: str, arguments: tuple[str | int, ...]) -> int:
    return int(client.eval(_REMOVE, 2, key, keys.ONLY.popularity_removed, *arguments))
