"""The ALS model: item factors, fold-in of users and new items, scores and similar items.

Implements Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets"
(ICDM 2008). A user's vector is a pure function of the user's weights and the item factors. S are
the items of the user's interactions, with preference 1 and confidence c_i = alpha * weight_i
(lower for popular items: models/als/confidence.py); every other item has preference 0 and
confidence 1, as in `implicit`. With the item factors Y (n_items, f):

    A = Y'Y + regularization * I + sum over S of (c_i - 1) y_i y_i'
    b = sum over S of c_i y_i
    x = A^-1 b

Section 5 of the paper splits the score of item t among the items of the history:

    y_t' x = sum over S of  c_i * y_t' A^-1 y_i

An item that came after the training gets its factors in the same way with the roles swapped: X'X
of the trained users in place of Y'Y, and the vectors of the item's users in place of item factors.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import scipy.sparse as sp

from core.errors import ModelCorrupt, ModelError
from models import files
from models.als.arrays import Floats, Rows, check_history, check_matrix, positive_csr
from models.als.confidence import Confidence
from models.als.fold import Fold, inverse_of
from models.als.user_side import UserSide
from models.id_map import IdMap


class ALSFacts(msgspec.Struct, frozen=True):
    """als.json: the hyperparameters, and the sizes of the arrays in the same folder."""

    regularization: float
    alpha: float
    factors: int
    items: int
    users: int = 0
    popularity_discount: float = 0.0


class ALSModel:
    """Item factors, and what the fold-in of a user or an item needs. Immutable."""

    def __init__(
        self,
        item_ids: IdMap,
        item_factors: Floats,
        users: UserSide | None = None,
        *,
        regularization: float,
        alpha: float,
        confidence: Confidence | None = None,
    ) -> None:
        """`item_factors` (n_items, f): float32, C-contiguous.

        `users`: without them no item can be folded in. `confidence`: the popularity discount;
        None: no discount. Raises ValueError when shapes or dtypes do not fit.
        """
        check_matrix("item_factors", item_factors, len(item_ids))
        self.item_ids, self.item_factors = item_ids, item_factors
        self.user_gram: Floats | None = None
        self.user_ids: IdMap | None = None
        self.user_factors: Floats | None = None
        if users is not None:
            width = item_factors.shape[1]
            if users.factors is not None:
                rows = 0 if users.ids is None else len(users.ids)
                check_matrix("user_factors", users.factors, rows, width)
            check_matrix("user_gram", users.gram, width, width)
            self.user_gram, self.user_ids, self.user_factors = users
        self.regularization, self.alpha = float(regularization), float(alpha)
        self.confidence = confidence or Confidence()
        counts = self.confidence.counts
        if counts is not None and counts.shape != (len(item_ids),):
            raise ValueError(f"item_counts is {counts.shape} for {len(item_ids)} ids")
        counts = np.ones(len(item_ids), np.float32) if counts is None else counts
        self._alphas: Floats = np.float32(alpha) * self.confidence.relative(counts)
        self.factors: int = item_factors.shape[1]
        self._yty: Floats = np.ascontiguousarray(item_factors.T @ item_factors)
        self._gram: Floats = self._yty + np.float32(regularization) * np.eye(
            self.factors, dtype=np.float32
        )
        self._inverse = inverse_of(self._gram)
        norms = np.sqrt(np.einsum("ij,ij->i", item_factors, item_factors))
        self._inverse_norms: Floats = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)

    @cached_property
    def digest(self) -> str:
        """Hex digest of all that a fold-in depends on.

        These are item ids and factors, regularization, and alpha after the popularity discount.
        """
        digest = hashlib.blake2b(
            repr((self.regularization, self.alpha, self.item_factors.shape)).encode(),
            digest_size=16,
        )
        digest.update("\n".join(self.item_ids.ids).encode())
        digest.update(self.item_factors.data)
        if self.confidence.discount:
            digest.update(self._alphas.data)
        return digest.hexdigest()

    def fold_in(self, rows: Rows, weights: Floats) -> Floats:
        """The vector (f,) f32 of one user.

        `rows` (n,) int32: the user's items, each at most once; `weights` (n,) f32 >= 0: theirs.
        Raises ValueError for other input; ModelError when the equation is singular.
        Equal to `implicit`'s `recalculate_user`, except for the popularity discount and for a
        weight of 0, which is skipped here (`implicit` reads it as confidence 0).
        """
        return self.fold(rows, weights).vector

    def fold(self, rows: Rows, weights: Floats, *, checked: bool = False) -> Fold:
        """The same as `fold_in`, with the factorized equation for `Fold.explain`.

        `checked`: the caller has checked that rows lie within the model and that weights are finite
        and above 0; the check, a fifth of the time, is skipped. Raises as `fold_in` does.
        One factorization by LAPACK serves vector and reasons. For one user it takes a fraction of
        the time of the compiled solver (docs/adr/0001-als-read.md), which `fold_in_many` uses.
        """
        if not checked:
            rows, weights = check_history(rows, weights, len(self.item_ids))
        return Fold(
            self._gram, self._inverse, self.item_factors[rows], self._alphas[rows] * weights
        )

    def fold_in_many(self, user_items: sp.csr_matrix, num_threads: int = 1) -> Floats:
        """Vectors (n_users, f) f32 of many users, by `implicit`'s compiled solver.

        `user_items` (n_users, n_items) f32 CSR: weights >= 0. A user without a weight gets zeros.
        Raises ValueError.
        """
        if user_items.shape[1] != len(self.item_ids):
            raise ValueError(
                f"user_items has {user_items.shape[1]} columns for {len(self.item_ids)} items"
            )
        weights = positive_csr(user_items)
        weights.data *= self._alphas[weights.indices]
        return self._solve(self._yty, weights, self.item_factors, num_threads)

    def fold_items_in(
        self, item_users: sp.csr_matrix, user_vectors: Floats, num_threads: int = 1
    ) -> Floats:
        """Factors (n_items, f) f32 of items that are not in the model, from the items' users.

        `item_users` (n_items, n_users) f32 CSR: weights >= 0; `user_vectors` (n_users, f) f32: the
        fold-ins of those users. An item without a weight gets zeros.
        Raises ValueError; ModelError without `user_gram`: a retrain writes one.
        Equal to `implicit`'s `recalculate_item`, except for the popularity discount. That counts
        the users in `item_users`, of which live workers store at most YOUNG_ITEM_USERS for an item.
        """
        if self.user_gram is None:
            raise ModelError(
                "this ALS part has no user_gram.npy, which the fold-in of an item needs; "
                "retrain to write it"
            )
        check_matrix("user_vectors", user_vectors, item_users.shape[1], self.factors)
        weights = positive_csr(item_users)
        counts = np.diff(weights.indptr)
        weights.data *= np.repeat(
            np.float32(self.alpha) * self.confidence.relative(counts.astype(np.float32)), counts
        )
        return self._solve(self.user_gram, weights, user_vectors, num_threads)

    def _solve(
        self, gram: Floats, confidences: sp.csr_matrix, factors: Floats, num_threads: int
    ) -> Floats:
        """Vectors (n, f) f32 of one side, as half a sweep of ALS computes them.

        `confidences` (n, m) f32 CSR with the other side, whose `factors` are (m, f); `gram` (f, f)
        is that of all trained vectors of the other side.
        """
        # Imported here: it takes half a second, and the fold-in of one user does not need it.
        from implicit.cpu._als import _least_squares

        solution = np.zeros((confidences.shape[0], self.factors), dtype=np.float32)
        _least_squares(
            gram,
            confidences.indptr,
            confidences.indices,
            confidences.data,
            solution,
            factors,
            self.regularization,
            num_threads=num_threads,
        )
        return solution

    def explain(self, rows: Rows, weights: Floats, target_rows: Rows) -> Floats:
        """Contributions (n_targets, n_history) f32 of the history to the scores of targets.

        `rows`, `weights`: the history, as for `fold_in`; `target_rows` (n_targets,) int32. The sum
        of a row is the score of that target; a weight of 0 contributes 0. Raises as `fold_in` does.
        """
        contributions = np.zeros((len(target_rows), len(rows)), dtype=np.float32)
        used = np.asarray(weights) > 0
        if used.any():
            contributions[:, used] = self.fold(rows, weights).explain(
                self.item_factors[target_rows]
            )
        return contributions

    def scores(self, vector: Floats) -> Floats:
        """Scores (n_items,) f32 of a user vector (f,)."""
        scores: Floats = self.item_factors @ vector
        return scores

    def cosines(self, factors: Floats) -> Floats:
        """Cosine (n_items,) f32 of all item factors with `factors` (f,); 0 where either is zero."""
        norm = float(np.linalg.norm(factors))
        cosines: Floats = (
            (self.item_factors @ factors)
            * self._inverse_norms
            * np.float32(1 / norm if norm > 0 else 0)
        )
        return cosines

    def similar(self, row: int, k: int) -> tuple[Rows, Floats]:
        """The `k` items with the highest cosine with item `row`, best first, without itself.

        Returns rows (k,) int32 and cosines (k,) f32.
        """
        cosines = self.cosines(self.item_factors[row])
        order = np.argsort(-cosines, kind="stable")
        rows = order[order != row][:k].astype(np.int32)
        return rows, cosines[rows]

    def save(self, folder: Path) -> None:
        """Write item_factors.npy, als_item_mapping.json and als.json, and the optional arrays.

        These are item_counts.npy with a popularity discount, and user_gram.npy, user_factors.npy
        and als_user_mapping.json when the model has users.
        """
        files.write_array(folder / "item_factors.npy", self.item_factors)
        if self.confidence.counts is not None:
            files.write_array(folder / "item_counts.npy", self.confidence.counts)
        if self.user_gram is not None:
            files.write_array(folder / "user_gram.npy", self.user_gram)
        self.item_ids.save(folder / "als_item_mapping.json")
        if self.user_ids is not None and self.user_factors is not None:
            files.write_array(folder / "user_factors.npy", self.user_factors)
            self.user_ids.save(folder / "als_user_mapping.json")
        users = 0 if self.user_ids is None else len(self.user_ids)
        facts = ALSFacts(
            self.regularization,
            self.alpha,
            self.factors,
            len(self.item_ids),
            users,
            self.confidence.discount,
        )
        files.write_json(folder / "als.json", facts)

    @classmethod
    def load(cls, folder: Path, users: bool = False, mapped: bool = False) -> ALSModel:
        """Read what `save` wrote.

        `users`: also map the trained user vectors, which stay on disk; serving folds users in and
        does not need them. `mapped`: map the item factors (models.files.read_floats).
        Raises ModelMissing and ModelCorrupt, which name the file.
        """
        facts = files.read_json(folder / "als.json", ALSFacts)
        item_ids = IdMap.load(folder / "als_item_mapping.json")
        item_factors = files.read_floats(folder / "item_factors.npy", 2, mapped)
        item_counts = (
            files.read_floats(folder / "item_counts.npy", 1) if facts.popularity_discount else None
        )
        trained = UserSide.load(folder, users and facts.users > 0)
        try:
            model = cls(
                item_ids,
                item_factors,
                trained,
                regularization=facts.regularization,
                alpha=facts.alpha,
                confidence=Confidence(facts.popularity_discount, item_counts),
            )
        except ValueError as error:
            raise ModelCorrupt(f"{folder}: {error}") from None
        if (model.factors, len(item_ids)) != (facts.factors, facts.items):
            raise ModelCorrupt(
                f"{folder}: item_factors.npy is {item_factors.shape}, als.json says "
                f"({facts.items}, {facts.factors})"
            )
        return model
