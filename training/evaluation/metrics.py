"""Computes ranking metrics.

All functions are pure; each has its source and a test on numbers computed by hand.

A list is a row of `ranked (n_users, length) int32`: item rows, best first, -1 where the list is
shorter. `held_out (n_users, n_items)` is a CSR matrix whose stored entries are the user's relevant
items: those of interactions after the cut. Rows are users with at least one held-out item.

Conventions, the same as in the published numbers that we compare with: candidates are the whole
catalogue minus what the user already has; recall divides by the number of held-out items; NDCG
divides by the ideal DCG of min(k, held-out).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int32]

CUTOFFS = (5, 10, 20)
BOOTSTRAP_ROUNDS = 1000
"""Resamples of a bootstrap: percentiles at 2.5% then rest on 25 of them, enough for two digits."""

BLOCK_ROUNDS = 100
"""Resamples in one block: 16 MB for 10,000 users."""


def hits(ranked: Rows, held_out: sp.csr_matrix) -> Bools:
    """(n_users, length) bool: whether the item at each place was held out."""
    n_users, n_items = held_out.shape
    if ranked.shape[0] != n_users:
        raise ValueError(f"{ranked.shape[0]} lists for {n_users} users")
    relevant = (
        np.repeat(np.arange(n_users, dtype=np.int64), np.diff(held_out.indptr)) * n_items
        + held_out.indices
    )
    listed = np.arange(n_users, dtype=np.int64)[:, None] * n_items + ranked
    hit: Bools = np.isin(listed, relevant) & (ranked >= 0)
    return hit


def held_out_counts(held_out: sp.csr_matrix) -> npt.NDArray[np.int64]:
    """(n_users,): how many items of each user were held out."""
    counts: npt.NDArray[np.int64] = np.diff(held_out.indptr).astype(np.int64)
    return counts


def precision(hit: Bools, k: int) -> Floats:
    """Share of the first k places that hit; an empty place is a miss.

    Manning, Raghavan, Schütze 2008, 8.4.
    """
    share: Floats = hit[:, :k].sum(axis=1) / float(k)
    return share


def recall(hit: Bools, counts: npt.NDArray[np.int64], k: int) -> Floats:
    """Share of the held-out items that the first k places hold (ibid., 8.3)."""
    share: Floats = hit[:, :k].sum(axis=1) / counts
    return share


def average_precision(hit: Bools, counts: npt.NDArray[np.int64], k: int) -> Floats:
    """Mean of precision@i over the hits at i <= k, over min(k, held-out).

    Its mean over users is MAP@k (ibid., 8.4, cut at k).
    """
    top = hit[:, :k]
    places = np.arange(1, top.shape[1] + 1)
    total = (np.cumsum(top, axis=1) / places * top).sum(axis=1)
    mean: Floats = total / np.minimum(k, counts)
    return mean


def ndcg(hit: Bools, counts: npt.NDArray[np.int64], k: int) -> Floats:
    """DCG with binary gain and log2(place + 1), over the ideal DCG of min(k, held-out).

    Järvelin, Kekäläinen 2002.
    """
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(k, counts) - 1]
    top = hit[:, :k]
    gain: Floats = (top @ discounts[: top.shape[1]]) / ideal
    return gain


def diversity(ranked: Rows, vectors: sp.csr_matrix) -> Floats:
    """Mean of 1 - cosine over all pairs of a list.

    Ziegler et al. 2005, "intra-list similarity", inverted.

    `vectors (n_items, n_features) f32`, rows of length 1, or 0 for an item without content, which
    is similar to none. NaN for a list of fewer than two. With s the sum of a list's vectors, the
    sum over ordered pairs is |s|² minus the sum of |v|².
    """
    listed = ranked >= 0
    sizes = listed.sum(axis=1)
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    membership = sp.csr_matrix(
        (np.ones(int(sizes.sum()), np.float64), ranked[listed], indptr),
        shape=(len(ranked), vectors.shape[0]),
    )
    squares = np.asarray(vectors.multiply(vectors).sum(axis=1), dtype=np.float64).ravel()
    sums = membership @ vectors
    pairs = (
        np.asarray(sums.multiply(sums).sum(axis=1), dtype=np.float64).ravel() - membership @ squares
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        spread: Floats = np.where(sizes >= 2, 1.0 - pairs / (sizes * (sizes - 1.0)), np.nan)
    return spread


def coverage(ranked: Rows, n_items: int) -> float:
    """Share of the catalogue that at least one list shows.

    Ge, Delgado-Battenfeld, Jannach 2010.
    """
    return len(np.unique(ranked[ranked >= 0])) / n_items if n_items else 0.0


def novelty(ranked: Rows, users_by_item: npt.NDArray[np.int64], n_users: int) -> Floats:
    """Mean self-information log2(n_users / users of the item) of a list, in bits (Zhou et al.
    2010).

    `users_by_item (n_items,)`: training users of each item; 0 counts as 1. NaN for an empty list.
    """
    bits = np.log2(max(n_users, 1) / np.maximum(users_by_item, 1))
    listed = ranked >= 0
    sizes = listed.sum(axis=1)
    total = np.where(listed, bits[ranked], 0.0).sum(axis=1) if len(bits) else np.zeros(len(ranked))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean: Floats = np.where(sizes > 0, total / sizes, np.nan)
    return mean


def bootstrap(values: Floats, seed: int, rounds: int = BOOTSTRAP_ROUNDS) -> tuple[Floats, Floats]:
    """95% percentile intervals of the mean over users (Efron 1979).

    `values (n_users, n_metrics)` -> low, high `(n_metrics,)`.

    All metrics use the same resamples, so that an interval of a difference of two engines is the
    interval of `a - b`. The mean ignores NaN entries, as the estimate itself does.
    """
    n_users, n_metrics = values.shape
    if n_users == 0:
        return np.full(n_metrics, np.nan), np.full(n_metrics, np.nan)
    rng = np.random.default_rng(seed)
    draws = np.concatenate(
        [
            _draws(rng, n_users, min(BLOCK_ROUNDS, rounds - first))
            for first in range(0, rounds, BLOCK_ROUNDS)
        ]
    )
    present = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (draws @ np.where(present, values, 0.0)) / (draws @ present)
        missing = ~present.any(axis=0)
        means[:, missing] = 0.0
        whole = not np.isnan(means).any()  # nanpercentile is slow: it handles one column at a time
        low, high = (np.percentile if whole else np.nanpercentile)(means, [2.5, 97.5], axis=0)
    low[missing] = high[missing] = np.nan
    return low, high


def _draws(rng: np.random.Generator, n_users: int, rounds: int) -> Floats:
    """(rounds, n_users): how often each round draws each user."""
    places = rng.integers(0, n_users, (rounds, n_users)) + np.arange(rounds)[:, None] * n_users
    times: Floats = (
        np.bincount(places.ravel(), minlength=rounds * n_users)
        .reshape(rounds, n_users)
        .astype(np.float64)
    )
    return times


def sampled_rank_gain(
    better: npt.NDArray[np.int64], candidates: npt.NDArray[np.int64], negatives: int, k: int
) -> tuple[Floats, Floats]:
    """Expected HR@k and NDCG@k of one held-out item among sampled candidates.

    `negatives`: their number; they are drawn without replacement.

    `better (n,)`: how many of the `candidates (n,)` other items rank above it. The number of those
    drawn is hypergeometric, so the expectation over all draws is exact and has no sampling noise
    (Krichene, Rendle 2020: On Sampled Metrics for Item Recommendation).
    """
    from scipy.stats import hypergeom

    above = np.arange(k)
    drawn = np.minimum(negatives, candidates)
    chance = hypergeom.pmf(above[None, :], candidates[:, None], better[:, None], drawn[:, None])
    hit: Floats = chance.sum(axis=1)
    gain: Floats = chance @ (1.0 / np.log2(above + 2.0))
    return hit, gain
