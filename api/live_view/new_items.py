"""Follows the factors of new items in Redis, which the live workers write."""

from __future__ import annotations

import numpy as np

from core.types import LiveVector
from engines.recommender import Recommender
from models.als.new_items import NewItemFactors
from models.id_map import IdMap
from store.state.connection import Client
from store.state.entities import new_items


class NewItemFollower:
    """The factors of the items that came after the bundle."""

    def __init__(self) -> None:
        self._cursor = ""
        self._vectors: dict[str, LiveVector] = {}

    def refresh(self, client: Client) -> bool:
        """Read what has changed in Redis; whether something has. Raises StoreError."""
        changes = new_items.changes(client, self._cursor)
        self._cursor = changes.cursor
        unchanged = {} if changes.complete else self._vectors
        vectors = {
            item_id: vector for item_id, vector in unchanged.items() if item_id not in changes.gone
        } | changes.factors
        if vectors == self._vectors:
            return False
        self._vectors = vectors
        return True

    def factors(self, recommender: Recommender) -> NewItemFactors:
        """The factors that were made with the recommender's ALS model.

        Vectors of another length, or with numbers that are not finite, are left out.
        """
        model, made_with = recommender.bundle.als, recommender.made_with
        size = 4 * model.factors if model is not None else -1
        vectors = {
            item_id: vector.vector
            for item_id, vector in self._vectors.items()
            if vector.made_with == made_with and len(vector.vector) == size
        }
        if not vectors:
            return NewItemFactors.none()
        factors = np.frombuffer(b"".join(vectors.values()), dtype="<f4").reshape(len(vectors), -1)
        finite = np.isfinite(factors).all(axis=1)
        item_ids = [item_id for item_id, ok in zip(vectors, finite.tolist(), strict=True) if ok]
        return NewItemFactors(IdMap(item_ids), factors[finite], made_with)
