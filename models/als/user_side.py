"""The user side of an ALS model: what it stores of the users it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from models import files
from models.als.arrays import Floats
from models.id_map import IdMap


class UserSide(NamedTuple):
    """The users a model was trained on.

    `gram` (f, f) f32: X'X of all of them, which the fold-in of an item needs. `ids` and `factors`
    (n_users, f) f32: None where the model serves, which needs neither.
    """

    gram: Floats
    ids: IdMap | None = None
    factors: Floats | None = None

    @classmethod
    def of(cls, ids: IdMap, factors: Floats) -> UserSide:
        """The users `ids` with their `factors`, and the gram of these."""
        return cls(np.ascontiguousarray(factors.T @ factors), ids, factors)

    @classmethod
    def load(cls, folder: Path, factors: bool) -> UserSide | None:
        """The trained users of the model in `folder`, with their ids and factors if `factors`.

        None when the folder has nothing of them. Raises ModelMissing, ModelCorrupt.
        """
        path = folder / "user_gram.npy"  # bundles of older releases lack it
        gram = files.read_floats(path, 2) if path.exists() else None
        if not factors:
            return None if gram is None else cls(gram)
        ids = IdMap.load(folder / "als_user_mapping.json")
        user_factors = files.read_floats(folder / "user_factors.npy", 2, mmap=True)
        return cls.of(ids, user_factors) if gram is None else cls(gram, ids, user_factors)
