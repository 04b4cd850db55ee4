"""Items that came after the bundle was trained, with ALS factors from the users who touched them (ALSModel.fold_items_in)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.id_map import IdMap


class YoungItems:
    """Factors of items that the ALS part of a bundle does not know. Immutable; falsy when there are none.

    They are scored with the same user vectors as the bundle's items and never enter one, so a user's vector stays a function of the
    log and the bundle alone. `made_with` names what they were made with (engines.fold.made_with): factors of another one don't compare.
    """

    __slots__ = ("factors", "ids", "made_with")

    def __init__(self, ids: IdMap, factors: NDArray[np.float32], made_with: str) -> None:
        """`factors` (n_items, f) f32, finite. Raises ValueError."""
        shaped: Any = factors
        if not isinstance(shaped, np.ndarray) or shaped.ndim != 2 or shaped.dtype != np.float32 or len(shaped) != len(ids):
            raise ValueError(f"factors of {len(ids)} young items must be a float32 matrix of as many rows")
        if not np.isfinite(shaped).all():
            raise ValueError("factors of young items must be finite")
        self.ids, self.factors, self.made_with = ids, factors, made_with

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls) -> YoungItems:
        """No young items: fits every model."""
        return cls(IdMap([]), np.zeros((0, 1), dtype=np.float32), "")
