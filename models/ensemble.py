"""The tuned blend of a bundle: its engines, their weights, and how their scores are combined."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from core.errors import ModelCorrupt
from core.types import BlendMethod
from models import files

FILE = "ensemble.json"
POWERS = (0.5, 1.0, 2.0)
"""Exponents of an engine's score in [0, 1]: the first raises scores below the best, the last lowers
them."""

Numbers = tuple[float, float, float]
"""One weight for each of POWERS."""


class Learned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Learned blend weights by the user's number of events (training/blend/learned.py).

    `weights`: engine -> (weights for users with at most `few` events, weights for users with at
    least `many`), none below 0; `few` is at least 1. Between the two, the weights are interpolated
    by the logarithm of the number of events.
    """

    few: int
    many: int
    weights: dict[str, tuple[Numbers, Numbers]]

    def part(self, events: int) -> float:
        """Position of `events` between the two ends: 0 at `few`, 1 at `many`."""
        if self.many <= self.few:
            return 0.5
        return min(
            max(math.log(max(events, 1) / self.few) / math.log(self.many / self.few), 0.0), 1.0
        )

    def at(self, events: int) -> dict[str, Numbers]:
        """Engine -> weights for a user with this number of events; the sum of all is 1."""
        part = self.part(events)
        weights = {
            name: [(1.0 - part) * few + part * many for few, many in zip(*ends, strict=True)]
            for name, ends in self.weights.items()
        }
        total = math.fsum(weight for numbers in weights.values() for weight in numbers)
        return {name: (a / total, b / total, c / total) for name, (a, b, c) in weights.items()}


class Blend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ensemble.json. Only `load` checks it.

    `weights`: engine -> weight; 0 skips the engine, and only the ratios count. `method` is "fusion"
    in the file. `learned`: set if and only if `method` is "learned"; `weights` are then its mean
    over the users it was tuned on.
    """

    weights: dict[str, float]
    method: BlendMethod | Literal["learned"] = msgspec.field(default="min_max", name="fusion")
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
        if not _valid_weights(blend.weights.values()):
            raise ModelCorrupt(
                f"{folder / FILE}: weights must be finite, none below 0 and one above it, "
                f"not {blend.weights}"
            )
        if (blend.learned is not None) != (blend.method == "learned"):
            raise ModelCorrupt(
                f'{folder / FILE}: "learned" and "fusion": "learned" need each other; '
                f'"fusion" is {blend.method!r}'
            )
        if blend.learned is not None and not _valid_learned(blend.learned, blend.shares):
            raise ModelCorrupt(
                f"{folder / FILE}: learned weights must be those of "
                f"{', '.join(blend.shares)}, not {blend.learned}"
            )
        return blend


def _valid_weights(weights: Collection[float]) -> bool:
    return all(0 <= weight < math.inf for weight in weights) and any(weights)


def _valid_learned(learned: Learned, shares: Mapping[str, float]) -> bool:
    few, many = (
        [weight for ends in learned.weights.values() for weight in ends[side]] for side in (0, 1)
    )
    return (
        learned.few >= 1
        and learned.weights.keys() == shares.keys()
        and _valid_weights(few)
        and _valid_weights(many)
    )
