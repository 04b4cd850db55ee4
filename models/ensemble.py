"""The blend that tuning chose: which engines, with which weights, fused how."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from core.errors import ModelCorrupt
from core.types import Fusion
from models import files

FILE = "ensemble.json"


class Blend(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """ensemble.json. `weights`: engine -> its weight, 0 leaves it out; only their ratios count. Checked by `load` alone."""

    weights: dict[str, float]
    fusion: Fusion = "min_max"

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
        if not all(0 <= weight < math.inf for weight in blend.weights.values()) or not any(blend.weights.values()):
            raise ModelCorrupt(f"{folder / FILE}: weights must be finite, none below 0 and one above it, not {blend.weights}")
        return blend
