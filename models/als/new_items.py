"""New items: ALS factors of items that came after the training of the bundle.

`ALSModel.fold_items_in` computes the factors from the items' users.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.id_map import IdMap


class NewItemFactors:
    """Factors of new items, which are not in the bundle's ALS part. Immutable; falsy when empty.

    The user vectors that score the bundle's items also score these. They never enter a user vector,
    which so stays a function of the log and the bundle alone. `made_with` (engines.fold.made_with)
    identifies model and settings of the factors; only factors with the same one are comparable.
    """

    __slots__ = ("factors", "ids", "made_with")

    def __init__(self, ids: IdMap, factors: NDArray[np.float32], made_with: str) -> None:
        """`factors` (n_items, f) f32, finite. Raises ValueError for others."""
        matrix: Any = factors
        if (
            not isinstance(matrix, np.ndarray)
            or matrix.ndim != 2
            or matrix.dtype != np.float32
            or len(matrix) != len(ids)
        ):
            raise ValueError(
                f"factors of {len(ids)} new items must be a float32 matrix with as many rows"
            )
        if not np.isfinite(matrix).all():
            raise ValueError("factors of new items must be finite")
        self.ids, self.factors, self.made_with = ids, factors, made_with

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def none(cls) -> NewItemFactors:
        """No new items: fits every model."""
        return cls(IdMap([]), np.zeros((0, 1), dtype=np.float32), "")
