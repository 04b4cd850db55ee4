"""Item popularity with forward decay: an event's weight grows with its time, and nothing is ever
rescanned.

Cormode, Shkapenyuk, Srivastava, Xu: Forward Decay, ICDE 2009. The weight of an event at time t is w
* 2^((t - L) / H) with a fixed landmark L; the decayed popularity at any later time is the stored
sum times 2^(-(now - L) / H), so ranking needs no decay at all.
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
"""Seconds within which growth is the same."""
_STEPS = 128
"""Growth is rounded to 7 bits (under 0.6%), so that sums of it are exact in a float64, in any
order, over some 30 half-lives.
"""


def growth(timestamp: float, half_life_days: float) -> float:
    """2^((timestamp - LANDMARK) / half-life), of the whole HOUR and rounded to 7 significant
    bits.
    """
    return _growth_of_hour(int(timestamp // HOUR), half_life_days)


@lru_cache(maxsize=100_000)
def _growth_of_hour(hour: int, half_life_days: float) -> float:
    mantissa, exponent = math.frexp(2.0 ** ((hour * HOUR - LANDMARK) / (half_life_days * _DAY)))
    return math.ldexp(round(mantissa * _STEPS) / _STEPS, exponent)


def decay_factor(settings: Settings, now: float) -> float:
    """What a stored score is multiplied by to read as "weight of events, counted at time `now`"."""
    return 1.0 / growth(now, settings.popularity_half_life_days)


def top(
    client: redis.Redis, names: Sequence[str], count: int = MOST
) -> dict[str, list[tuple[str, float]]]:
    """The `count` most popular items by name (use cases and `unlabelled`), best first, with their
    stored scores.

    Raises StoreUnavailable, StoreCorrupt.
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
