"""Solves the fold-in equation of ALS for one user, and splits the user's scores among the history.

models/als/model.py has the equation and its symbols.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg.lapack import sgetrf, sgetrs, spotrf, spotrs

from core.errors import ModelError
from models.als.arrays import Floats

MAX_CONDITION = 1e5
"""Condition number of G up to which a fold-in by its float32 inverse has a smaller error than the
direct solution."""


class Fold:
    """One user's fold-in: `vector` (f,) f32, and the factorized equation that also splits scores.

    A short history is solved in its own n dimensions. With G = Y'Y + regularization * I, H (n, f)
    the factors of the history's items, D = diag(c - 1) and K = H G^-1 H', the push-through identity
    gives  A^-1 H' = G^-1 H' (I + D K)^-1.  This takes 0.4 of the time of the f x f Cholesky at n =
    4 and 0.8 at n = 50 (f = 128), with a smaller error. docs/adr/0001-als-read.md has the numbers.
    """

    __slots__ = ("_confidence", "_factors", "_history", "_pivots", "vector")

    def __init__(
        self, gram: Floats, inverse: Floats | None, history: Floats, confidence: Floats
    ) -> None:
        """`gram` G and `inverse` G^-1 (f, f); `history` H (n, f); `confidence` c (n,): all f32.

        `inverse` is None where float32 cannot hold it (`inverse_of`).
        Raises ModelError when the equation is singular: the model must be trained again.
        """
        self._confidence = confidence
        self._history: Floats = history
        self._pivots: Any = None
        self.vector: Floats
        if inverse is not None and 2 * len(history) <= history.shape[1]:
            self._history = history @ inverse
            system = (self._history @ history.T) * (confidence - 1)  # K D
            system.flat[:: len(history) + 1] += 1
            self._factors, self._pivots, info = sgetrf(system)
            _check_solved(info)
            solution = sgetrs(self._factors, self._pivots, confidence, trans=1)[0]
            self.vector = solution @ self._history
        else:
            system = gram + (history.T * (confidence - 1)) @ history
            # Symmetric: its transpose has the order that LAPACK reads without a copy.
            self._factors, info = spotrf(system.T, lower=1, clean=0, overwrite_a=1)
            _check_solved(info)
            self.vector = spotrs(self._factors, confidence @ history, lower=1)[0]

    def explain(self, targets: Floats) -> Floats:
        """Contribution of each item of the history to the score of each target.

        `targets` (n_targets, f) f32: item factors. Returns (n_targets, n_history) f32; a row's sum
        is that target's score.
        """
        if self._pivots is None:
            solution = self._history @ spotrs(self._factors, targets.T, lower=1)[0]
        else:
            solution = sgetrs(self._factors, self._pivots, self._history @ targets.T)[0]
        contributions: Floats = solution.T * self._confidence
        return contributions


def inverse_of(gram: Floats) -> Floats | None:
    """The inverse (f, f) f32 of `gram` (f, f) f32; None if its condition exceeds MAX_CONDITION."""
    eigenvalues, eigenvectors = np.linalg.eigh(gram.astype(np.float64))
    if eigenvalues[0] <= 0 or eigenvalues[-1] > MAX_CONDITION * eigenvalues[0]:
        return None
    inverse = (eigenvectors / eigenvalues) @ eigenvectors.T
    return np.ascontiguousarray(inverse, dtype=np.float32)


def _check_solved(info: int) -> None:
    """`info`: the status that LAPACK returns, 0 for success."""
    if info:
        raise ModelError(
            "the fold-in equation of ALS is singular; train with a regularization above 0"
        )
