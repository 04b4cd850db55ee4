"""ALS confidence of an interaction, down-weighted for popular items (Steck 2011).

    confidence = alpha * weight * relative(n)
    relative(n) = s * n^-discount
    s = sum of n / sum of n^(1 - discount)

n is the number of users of the item. The sums go over the items of the model, so that the mean of
`relative` over all pairs of a user and an item is 1, and alpha stays the confidence of an event of
weight 1 for every discount. An interaction with a popular item says little about a user's taste;
Steck, "Item popularity and recommendation accuracy", weighs observations by n^-beta. A discount of
0 is plain ALS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.als.arrays import Floats


@dataclass(frozen=True, eq=False)
class Confidence:
    """The popularity discount of a model.

    `discount` in [0, 1]; `counts` (n_items,) f32 >= 1: the number of users of each item, None only
    without a discount. Raises ValueError.
    """

    discount: float = 0.0
    counts: Floats | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount <= 1.0:
            raise ValueError(f"the popularity discount must be in [0, 1], not {self.discount}")
        if self.discount and self.counts is None:
            raise ValueError(
                "a popularity discount needs item_counts: the number of users of each item"
            )
        if self.counts is not None and not (
            len(self.counts) and self.counts.min() >= 1 and np.isfinite(self.counts).all()
        ):
            raise ValueError(
                "item_counts must be finite and at least 1 for every item of the model"
            )

    def relative(self, counts: Floats) -> Floats:
        """Factor (n,) f32 of the confidence for items with `counts` (n,) f32 users."""
        if not self.discount:
            return np.ones(len(counts), np.float32)
        powers = np.maximum(counts, 1).astype(np.float64) ** -self.discount
        relative: Floats = (self._scale * powers).astype(np.float32)
        return relative

    @cached_property
    def _scale(self) -> float:
        assert self.counts is not None
        counts = self.counts.astype(np.float64)
        return float(counts.sum() / (counts ** (1.0 - self.discount)).sum())
