"""Compares the trained user vectors of an ALS part: with a user, and with an item."""

from __future__ import annotations

import heapq
from functools import cached_property
from pathlib import Path

import numpy as np

from core.process.background import with_pauses
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
        return self._best(self._products(unit) * self._inverse_norms, k)

    def keenest(self, item: Floats, k: int) -> list[tuple[str, float]]:
        """The `k` users who score an item of the factors `item` (f,) f32 highest, best first.

        Returns pairs of user id and score, only those with a score above 0.
        """
        return self._best(self._products(item), k) if len(self.ids) else []

    def search(self, text: str, limit: int) -> list[str]:
        """At most `limit` ids that contain `text`; first those that begin with it, shorter ids
        before longer ones.
        """
        matches = (user_id for user_id in with_pauses(self.ids.ids) if text in user_id)
        return heapq.nsmallest(
            limit, matches, key=lambda name: (not name.startswith(text), len(name), name)
        )

    def _products(self, vector: Floats) -> Floats:
        """(n_users,) f32: the product of each user's factors and `vector`."""
        blocks = [
            self.factors[start : start + BLOCK_USERS] @ vector
            for start in range(0, len(self.ids), BLOCK_USERS)
        ]
        return np.concatenate(blocks)

    def _best(self, scores: Floats, k: int) -> list[tuple[str, float]]:
        best = np.argpartition(-scores, k)[:k] if k < len(scores) else np.arange(len(scores))
        best = best[np.argsort(-scores[best], kind="stable")]
        return [(self.ids.ids[row], float(scores[row])) for row in best.tolist() if scores[row] > 0]

    @cached_property
    def _inverse_norms(self) -> Floats:
        """(n_users,) f32; 0 for a user without factors."""
        blocks = [
            np.linalg.norm(self.factors[start : start + BLOCK_USERS], axis=1)
            for start in range(0, len(self.ids), BLOCK_USERS)
        ]
        norms = np.concatenate(blocks).astype(np.float32)
        return np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
