"""Blends the scores of several engines, by pure functions on arrays.

Each part's scores are mapped to a scale from 0 to 1, and then added by weight.

The scale spans the live rows of the whole catalogue, not the rows that pass one request's filters.
An item's blended score is then the same in every request, so that pages, filters and `explain`
agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.types import BlendMethod
from engines.base import NO_OPINION, Scores

Floats = NDArray[np.floating[Any]]
Rows = NDArray[np.intp]

MISSING = 0.0
"""Scaled score of an item that a part does not score: the part's lowest. docs/ensemble-guide.md has
the measurement.
"""
RANK_CONSTANT = 60
"""The k of reciprocal rank fusion: the value of its authors (Cormack, Clarke, Büttcher 2009).

Results depend little on it.
"""


def blend_scores(
    method: BlendMethod,
    parts: Sequence[Floats],
    weights: Sequence[float],
    dead: Rows,
    bends: Sequence[Sequence[float]] | None = None,
) -> tuple[Scores, Scores]:
    """Blended scores (n,) f32, and the scaled scores (n_parts, n) f32 from 0 to 1.

    A blended score is NO_OPINION where no part has a score.

    `parts`: each part's scores (n,), NO_OPINION where it has none; `weights` sum to 1; `dead`: rows
    of deleted items. `bends`: for each part the weights of the powers of its scaled score
    (models.ensemble.POWERS); they sum to 1, so that 0, 1 and the order do not change. Raises
    ValueError for a score that is NaN or +infinity.
    """
    scaled = np.empty((len(parts), len(parts[0])), dtype=np.float32)
    unscored = np.ones(scaled.shape[1], dtype=np.bool_)
    for out, scores in zip(scaled, parts, strict=True):
        values = scores.copy()
        values[dead] = NO_OPINION
        no_score = values == NO_OPINION
        unscored &= no_score
        missing = no_score.nonzero()[0]
        SCALES[method](values, missing, out)
        out[missing] = MISSING
    if bends is not None:
        for out, bend in zip(scaled, bends, strict=True):
            out[:] = reshape(out, bend)
    blended: Scores = np.asarray(weights, dtype=np.float32) @ scaled
    blended[unscored.nonzero()[0]] = NO_OPINION
    return blended, scaled


def reshape(scaled: Scores, bend: Sequence[float]) -> Scores:
    """The sum of root, value and square of `scaled`, weighted by `bend`.

    `scaled` (n,) f32 is from 0 to 1; `bend` has three numbers.
    """
    root, itself, square = bend
    reshaped: Scores = (
        np.float32(root) * np.sqrt(scaled)
        + (np.float32(itself) + np.float32(square) * scaled) * scaled
    )
    return reshaped


def min_max(scores: Floats, missing: Rows, out: Scores) -> None:
    """Fill `out` (n,) f32: 0 for the lowest of `scores` (n,), 1 for the highest, linear between.

    1 for all when all are equal.

    Overwrites `scores`. Rows in `missing` hold NO_OPINION; the caller ignores what `out` has there.
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
    """Fill `out` (n,) f32 with (k + 1) / (k + rank): 1 for the highest of `scores` (n,).

    Equal scores share their best rank.

    Reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009), scaled to start at 1. Otherwise
    as `min_max`.
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


SCALES: Mapping[BlendMethod, Callable[[Floats, Rows, Scores], None]] = {
    "min_max": min_max,
    "rank": reciprocal_rank,
}
"""ENSEMBLE_FUSION -> function that maps a part's scores to the scale.

A new method is one line here and one in core.types.
"""
