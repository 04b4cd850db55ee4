"""How sure ALS is of an event: less of one with an item that everybody takes.

    confidence = alpha * weight * relative(n)        relative(n) = s * n^-discount        s = sum of n / sum of n^(1 - discount)

n is how many users took the item, and the sums go over the items of the model, so that `relative` is 1 in the mean of all pairs of a user
and an item: alpha is the confidence of an event of weight 1, whatever the discount. Taking what everybody takes says little about a taste
(Steck 2011, "Item popularity and recommendation accuracy", weighs what was observed by n^-beta). A discount of 0 is plain ALS.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Confidence:
    """`counts (n_items,)` f32, at least 1: how many users took each item; None only without a discount. Raises ValueError."""

    discount: float = 0.0
    counts: Floats | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount <= 1.0:
            raise ValueError(f"a popularity discount lies between 0 and 1; got {self.discount}")
        if self.discount and self.counts is None:
            raise ValueError("a popularity discount needs to know how many users took each item")
        if self.counts is not None and not (len(self.counts) and self.counts.min() >= 1 and np.isfinite(self.counts).all()):
            raise ValueError("every item of a model was taken by at least one user")

    def relative(self, counts: Floats) -> Floats:
        """(n,) f32 of items that `counts (n,)` users took."""
        if not self.discount:
            return np.ones(len(counts), np.float32)
        found: Floats = (self._scale * np.maximum(counts, 1).astype(np.float64) ** -self.discount).astype(np.float32)
        return found

    @cached_property
    def _scale(self) -> float:
        assert self.counts is not None
        counts = self.counts.astype(np.float64)
        return float(counts.sum() / (counts ** (1.0 - self.discount)).sum())
