"""How the scores of several engines become one: each put on the same scale from 0 to 1, then summed by weight. Pure functions on arrays.

A scale is made from the live rows of the whole catalogue, not from what one request's filters leave: an item's blended score is then the
same whatever else is asked for, so pages, filters and `explain` agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.types import Fusion
from engines.base import NO_OPINION, Scores

MISSING = 0.0
"""What an item counts with a part that has no opinion on it, as if it were that part's last: docs/ENSEMBLE_GUIDE.md has the measurement."""
RANK_CONSTANT = 60
"""The k of reciprocal rank fusion; 60 is its authors' (Cormack, Clarke, Büttcher 2009), and little depends on it."""


def min_max(scores: NDArray[np.floating], dead: NDArray[np.intp]) -> Scores:
    """(n,) f32: 0 for the lowest score, 1 for the highest, linear between; 1 for all when all are equal.

    `dead`: rows that do not count. NO_OPINION stays NO_OPINION. Raises ValueError for a score that is NaN or +infinity.
    """
    values, high = _live(scores, dead)
    if high == NO_OPINION:
        return values.astype(np.float32)
    low = values.min()
    if low == NO_OPINION:
        low = np.where(values > NO_OPINION, values, high).min()
    span = high - low
    if not span > 0:
        return np.where(values > NO_OPINION, np.float32(1), np.float32(NO_OPINION))
    values -= low
    values *= 1 / span
    return values.astype(np.float32, copy=False)


def reciprocal_rank(scores: NDArray[np.floating], dead: NDArray[np.intp]) -> Scores:
    """(n,) f32: (k + 1) / (k + rank), so 1 for the highest score; equal scores share the best of their ranks. Else as `min_max`.

    Reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009), scaled to begin at 1.
    """
    values, _ = _live(scores, dead)
    order = np.argsort(-values, kind="stable")
    ranked = values[order]
    first = np.concatenate([[True], ranked[1:] != ranked[:-1]])[: len(values)]
    places = np.maximum.accumulate(np.where(first, np.arange(1, len(values) + 1), 0))
    scaled = np.empty(len(values), dtype=np.float32)
    scaled[order] = (RANK_CONSTANT + 1) / (RANK_CONSTANT + places)
    scaled[values == NO_OPINION] = NO_OPINION
    return scaled


SCALES: Mapping[Fusion, Callable[[NDArray[np.floating], NDArray[np.intp]], Scores]] = {"min_max": min_max, "rank": reciprocal_rank}
"""ENSEMBLE_FUSION -> how a part's scores (n,) are put on the scale; a new method is one line here and one in core.types."""


def blend(parts: Sequence[tuple[Scores, float]]) -> Scores:
    """(n,) f32: sum of weight x scaled score over `parts`, MISSING where one has no opinion, NO_OPINION where none has."""
    scaled, weight = parts[0]
    known = scaled
    total: Scores = np.maximum(scaled, np.float32(MISSING))
    total *= np.float32(weight)
    for scaled, weight in parts[1:]:
        known = np.maximum(known, scaled)
        share = np.maximum(scaled, np.float32(MISSING))
        share *= np.float32(weight)
        total += share
    np.copyto(total, np.float32(NO_OPINION), where=known == NO_OPINION)
    return total


def _live(scores: NDArray[np.floating], dead: NDArray[np.intp]) -> tuple[NDArray[np.floating], float]:
    """A copy without the dead rows' scores, and its highest."""
    values = scores.copy()
    values[dead] = NO_OPINION
    high = float(values.max()) if len(values) else NO_OPINION
    if not high < np.inf:
        raise ValueError(f"a score is {high}")
    return values, high
