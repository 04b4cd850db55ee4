"""The blend that tuning chose: which engines, with which weights, fused how."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from core.errors import ModelCorrupt
from core.types import Fusion
from models import files

FILE = "ensemble.json"
POWERS = (0.5, 1.0, 2.0)
"""Of a part's score between 0 and 1: the first raises what lies behind the best, the last leaves little of it."""

Numbers = tuple[float, float, float]
"""One weight a power."""


class Learned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What training/blend/learned.py found.

    `weights`: engine -> its numbers, none below 0, for users of `few` events (at least 1) or fewer, and for users of `many` or more;
    between them by the log of the events.
    """

    few: int
    many: int
    weights: dict[str, tuple[Numbers, Numbers]]

    def part(self, events: int) -> float:
        """From 0 for `few` events to 1 for `many`."""
        if self.many <= self.few:
            return 0.5
        return min(max(math.log(max(events, 1) / self.few) / math.log(self.many / self.few), 0.0), 1.0)

    def at(self, events: int) -> dict[str, Numbers]:
        """Engine -> its numbers for a user of so many events; together they sum to 1."""
        part = self.part(events)
        mixed = {name: [(1.0 - part) * few + part * many for few, many in zip(*ends, strict=True)] for name, ends in self.weights.items()}
        total = math.fsum(number for numbers in mixed.values() for number in numbers)
        return {name: (a / total, b / total, c / total) for name, (a, b, c) in mixed.items()}


class Blend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ensemble.json. `weights`: engine -> its weight, 0 leaves it out; only their ratios count. Checked by `load` alone.

    `learned` goes with that fusion alone; `weights` are then the mean of those who chose.
    """

    weights: dict[str, float]
    fusion: Fusion | Literal["learned"] = "min_max"
    learned: Learned | None = None

    @property
    def shares(self) -> dict[str, float]:
        """The weights above 0, scaled to sum to 1."""
        total = math.fsum(self.weights.values())
        return {name: weight / total for name, weight in self.weights.items() if weight > 0}

    def save(self, folder: Path) -> None:
        """Write ensemble.json."""
        files.write_json(folder / FILE, self)

    @classmethod
    def load(cls, folder: Path) -> Blend:
        """Read what `save` wrote. Raises ModelMissing, ModelCorrupt."""
        blend = files.read_json(folder / FILE, cls)
        if not _weighs(blend.weights.values()):
            raise ModelCorrupt(f"{folder / FILE}: weights must be finite, none below 0 and one above it, not {blend.weights}")
        if (blend.learned is not None) != (blend.fusion == "learned"):
            raise ModelCorrupt(f"{folder / FILE}: learned weights belong to the fusion 'learned', not to {blend.fusion!r}, and it to them")
        if blend.learned is not None and not _learned(blend.learned, blend.shares):
            raise ModelCorrupt(f"{folder / FILE}: learned weights must be those of {', '.join(blend.shares)}, not {blend.learned}")
        return blend


def _weighs(weights: Collection[float]) -> bool:
    return all(0 <= weight < math.inf for weight in weights) and any(weights)


def _learned(learned: Learned, shares: Mapping[str, float]) -> bool:
    ends = [[number for both in learned.weights.values() for number in both[end]] for end in (0, 1)]
    return learned.few >= 1 and learned.weights.keys() == shares.keys() and all(map(_weighs, ends))
