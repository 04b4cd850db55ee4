"""Finds similar users among the trained user vectors of an ALS part."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from models import files
from models.als.arrays import Floats
from models.id_map import IdMap

BLOCK_USERS = 65_536
"""Users in a block: their factors are read from disk, 32 MB for 128 factors."""


class TrainedUsers:
    """Ids and factors (n_users, f) f32 of the trained users. The factors stay on disk."""

    def __init__(self, ids: IdMap, factors: Floats) -> None:
        """Raises ValueError when the numbers of ids and of rows differ."""
        if len(ids) != len(factors):
            raise ValueError(f"{len(ids)} ids for factors of {len(factors)} users")
        self.ids, self.factors = ids, factors

    @classmethod
    def load(cls, folder: Path) -> TrainedUsers:
        """Open those of the ALS part in `folder`. Raises ModelMissing, ModelCorrupt, ValueError."""
        return cls(
            IdMap.load(folder / "als_user_mapping.json"),
            files.read_floats(folder / "user_factors.npy", 2, mmap=True),
        )

    def nearest(self, vector: Floats, k: int) -> list[tuple[str, float]]:
        """The `k` users with the highest cosine with `vector` (f,) f32, best first.

        Returns pairs of user id and cosine, only those with a cosine above 0.
        """
        norm = float(np.linalg.norm(vector))
        if norm == 0 or not len(self.ids):
            return []
        unit = (vector / np.float32(norm)).astype(np.float32)
        blocks = [
            self.factors[start : start + BLOCK_USERS] @ unit
            for start in range(0, len(self.ids), BLOCK_USERS)
        ]
        cosines = np.concatenate(blocks) * self._inverse_norms
        best = np.argpartition(-cosines, k)[:k] if k < len(cosines) else np.arange(len(cosines))
        best = best[np.argsort(-cosines[best], kind="stable")]
        return [
            (self.ids.ids[row], float(cosines[row])) for row in best.tolist() if cosines[row] > 0
        ]

    @cached_property
    def _inverse_norms(self) -> Floats:
        """(n_users,) f32; 0 for a user without factors."""
        blocks = [
            np.linalg.norm(self.factors[start : start + BLOCK_USERS], axis=1)
            for start in range(0, len(self.ids), BLOCK_USERS)
        ]
        norms = np.concatenate(blocks).astype(np.float32)
        return np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
