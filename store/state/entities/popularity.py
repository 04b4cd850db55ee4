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
            pipe.zrevrange(keys.popular(name), 0, count - 1, withscores=True)
        replies = pipe.execute()
    return {
        name: [(member.decode(), float(score)) for member, score in reply]
        for name, reply in zip(names, replies, strict=True)
    }
