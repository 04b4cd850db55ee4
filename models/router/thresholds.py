"""The thresholds of the router that a bundle's validation users prefer, with their gain."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from core.errors import ModelCorrupt
from models import files

FILE = "router.json"
NEVER = 1_000_000
"""A threshold that no user reaches."""

Pair = tuple[int, int]
"""COLD_START_THRESHOLD and WARM_USER_THRESHOLD."""


class PreferredThresholds(msgspec.Struct, frozen=True, kw_only=True):
    """router.json: the `preferred` pair, and its gain over the `configured` one.

    `gain` is a share of the NDCG@10 of `configured` (0.01: 1%), with the 95% interval `low` to
    `high`, cross-validated over `users`.
    """

    preferred: Pair
    configured: Pair
    gain: float
    low: float
    high: float
    users: int

    @property
    def better(self) -> bool:
        """Whether the gain is more than chance."""
        return self.low > 0 and self.preferred != self.configured

    @property
    def recommended(self) -> Pair:
        """The pair to route by."""
        return self.preferred if self.better else self.configured

    @property
    def measured(self) -> str:
        """The gain in words."""
        return (
            f"{self.gain:+.1%} NDCG@10 [{self.low:+.1%}, {self.high:+.1%}] for {self.users:,} users"
        )

    def save(self, folder: Path) -> None:
        """Write router.json."""
        files.write_json(folder / FILE, self)

    @classmethod
    def load(cls, folder: Path) -> PreferredThresholds:
        """Read what `save` wrote. Raises ModelMissing, ModelCorrupt."""
        thresholds = files.read_json(folder / FILE, cls)
        pairs = thresholds.preferred, thresholds.configured
        numbers = thresholds.gain, thresholds.low, thresholds.high
        valid = all(0 <= cold <= warm for cold, warm in pairs)
        if not valid or not all(map(math.isfinite, numbers)):
            raise ModelCorrupt(
                f"{folder / FILE}: thresholds must be at least 0 and in order, and a gain finite, "
                f"not {thresholds}"
            )
        return thresholds


def named(pair: Pair) -> str:
    """The two thresholds in words, such as `5 and 20`, or `1 and never`."""
    return " and ".join("never" if limit >= NEVER else str(limit) for limit in pair)
