"""How the scores of several engines become one: each put on a scale from 0 to 1, then summed by weight. Pure functions on arrays.

A scale is made from the live rows of the whole catalogue, not from what one request's filters leave: an item's blended score is then the
same whatever else is asked for, so pages, filters and `explain` agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.types import Fusion
from engines.base import NO_OPINION, Scores

Floats = NDArray[np.floating[Any]]
Rows = NDArray[np.intp]

MISSING = 0.0
"""What an item counts with a part that has no opinion on it, as if it were that part's last: docs/ensemble-guide.md has the measurement."""
RANK_CONSTANT = 60
"""The k of reciprocal rank fusion; 60 is its authors' (Cormack, Clarke, Büttcher 2009), and little depends on it."""


def fuse(
    method: Fusion, parts: Sequence[Floats], weights: Sequence[float], dead: Rows, bends: Sequence[Sequence[float]] | None = None
) -> tuple[Scores, Scores]:
    """The blended scores (n,) f32, NO_OPINION where no part has one, and what they are made of: (n_parts, n) f32 from 0 to 1.

    `parts`: each part's scores (n,), NO_OPINION where it has none; `weights` sum to 1; `dead`: rows that count nowhere. `bends`: how
    much of each of its powers (models.ensemble.POWERS) stands for a part's score on the scale; they sum to 1, so that 0 stays 0, 1 stays 1
    and the order stays. Raises ValueError for a score that is NaN or +infinity.
    """
    scaled = np.empty((len(parts), len(parts[0])), dtype=np.float32)
    unknown = np.ones(scaled.shape[1], dtype=np.bool_)
    for out, scores in zip(scaled, parts, strict=True):
        values = scores.copy()
        values[dead] = NO_OPINION
        silent = values == NO_OPINION
        unknown &= silent
        missing = silent.nonzero()[0]
        SCALES[method](values, missing, out)
        out[missing] = MISSING
    if bends is not None:
        for out, bend in zip(scaled, bends, strict=True):
            out[:] = bent(out, bend)
    blended: Scores = np.asarray(weights, dtype=np.float32) @ scaled
    blended[unknown.nonzero()[0]] = NO_OPINION
    return blended, scaled


def bent(scaled: Scores, bend: Sequence[float]) -> Scores:
    """So much of the root of `scaled (n,)` f32 from 0 to 1, of itself and of its square."""
    root, itself, square = bend
    found: Scores = np.float32(root) * np.sqrt(scaled) + (np.float32(itself) + np.float32(square) * scaled) * scaled
    return found


def min_max(scores: Floats, missing: Rows, out: Scores) -> None:
    """Fill `out` (n,) f32: 0 for the lowest of `scores` (n,), 1 for the highest, linear between; 1 when all are equal.

    `scores` are used up; their rows `missing` hold NO_OPINION, and what `out` says there does not count.
    """
    high = _highest(scores)
    scores[missing] = high
    low = scores.min(initial=high)
    if high > low:
        scores -= low
        np.multiply(scores, 1 / (high - low), out=out, casting="same_kind")
    else:
        out[:] = 1


def reciprocal_rank(scores: Floats, missing: Rows, out: Scores) -> None:  # noqa: ARG001 - NO_OPINION ranks last by itself
    """Fill `out` (n,) f32: (k + 1) / (k + rank), so 1 for the highest of `scores` (n,); equal scores share the best of their ranks.

    Reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009), scaled to begin at 1. Else as `min_max`.
    """
    _highest(scores)
    order = np.argsort(-scores)
    ranked = scores[order]
    first = np.concatenate([[0], (ranked[1:] != ranked[:-1]).nonzero()[0] + 1])
    places = np.repeat(first, np.diff(first, append=len(ranked)))
    out[order] = (RANK_CONSTANT + 1) / (RANK_CONSTANT + 1 + places)


def _highest(scores: Floats) -> float:
    high: float = scores.max(initial=NO_OPINION)
    if not high < np.inf:
        raise ValueError(f"a score is {high}")
    return high


SCALES: Mapping[Fusion, Callable[[Floats, Rows, Scores], None]] = {"min_max": min_max, "rank": reciprocal_rank}
"""ENSEMBLE_FUSION -> how a part's scores are put on the scale; a new method is one line here and one in core.types."""
