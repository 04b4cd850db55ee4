"""Every metric on numbers that a reader can compute by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import ndcg_score

from training.evaluation import metrics

# Two users, a catalogue of six items. The first one's list is 3 1 0, the held-out items are
# 1 and 5; the second one's list is 2 alone, the held-out item is 2.
RANKED = np.array([[3, 1, 0], [2, -1, -1]], np.int32)
HELD_OUT = sp.csr_matrix(np.array([[0, 1, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]], np.float32))
HITS = metrics.hits(RANKED, HELD_OUT)
COUNTS = metrics.held_out_counts(HELD_OUT)


def test_a_rank_is_a_hit_if_its_item_was_held_out() -> None:
    assert HITS.tolist() == [[False, True, False], [True, False, False]]
    assert COUNTS.tolist() == [2, 1]


def test_an_empty_rank_is_no_hit_even_next_to_the_last_item_of_another_user() -> None:
    held_out = sp.csr_matrix(np.array([[0, 1], [1, 0]], np.float32))
    assert metrics.hits(np.array([[-1], [-1]], np.int32), held_out).tolist() == [[False], [False]]


def test_precision_is_hits_over_k() -> None:
    assert metrics.precision(HITS, 2).tolist() == [1 / 2, 1 / 2]
    assert metrics.precision(HITS, 20).tolist() == [1 / 20, 1 / 20]


def test_recall_is_hits_over_the_held_out_items() -> None:
    assert metrics.recall(HITS, COUNTS, 1).tolist() == [0, 1]
    assert metrics.recall(HITS, COUNTS, 3).tolist() == [1 / 2, 1]


def test_average_precision_rewards_early_hits() -> None:
    assert metrics.average_precision(HITS, COUNTS, 3).tolist() == [(1 / 2) / 2, 1]
    perfect = np.array([[True, True, False]])
    assert metrics.average_precision(perfect, np.array([2]), 3).tolist() == [1]


def test_ndcg_divides_by_the_best_possible_list_of_length_k() -> None:
    first = (1 / math.log2(3)) / (1 / math.log2(2) + 1 / math.log2(3))
    assert metrics.ndcg(HITS, COUNTS, 3) == pytest.approx([first, 1])
    assert metrics.ndcg(HITS, COUNTS, 1) == pytest.approx([0, 1])
    many = np.array([[True] * 5])
    assert metrics.ndcg(many, np.array([9]), 5) == pytest.approx([1]), (
        "five ranks cannot hold nine items"
    )


def test_ndcg_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    relevant = (rng.random((50, 30)) < 0.2).astype(np.float32)
    relevant[:, 0] = 1
    scores = rng.random((50, 30))
    ranked = np.argsort(-scores, axis=1).astype(np.int32)
    held_out = sp.csr_matrix(relevant)
    ours = metrics.ndcg(metrics.hits(ranked, held_out), metrics.held_out_counts(held_out), 10)
    assert ours.mean() == pytest.approx(ndcg_score(relevant, scores, k=10))


def test_diversity_is_the_mean_distance_of_all_pairs() -> None:
    half = math.sqrt(0.5)
    vectors = sp.csr_matrix(np.array([[1, 0], [1, 0], [0, 1], [half, half], [0, 0]], np.float32))
    ranked = np.array([[0, 1, -1], [0, 2, -1], [0, 2, 3], [0, 4, -1], [0, -1, -1]], np.int32)
    expected = [0, 1, (1 + 2 * (1 - half)) / 3, 1, math.nan]
    assert metrics.diversity(ranked, vectors) == pytest.approx(expected, nan_ok=True, abs=1e-6)


def test_coverage_is_the_share_of_the_catalogue_in_all_lists() -> None:
    assert metrics.coverage(RANKED, 8) == 4 / 8
    assert metrics.coverage(np.full((2, 3), -1, np.int32), 8) == 0


def test_novelty_is_the_mean_of_bits() -> None:
    users_by_item = np.array([8, 1, 0, 4, 2, 2])
    # item 3: log2(8/4) = 1 bit, item 1: 3 bits, item 0: none; item 2, which no user has, counts as
    # if one user had it: 3 bits
    assert metrics.novelty(RANKED, users_by_item, 8).tolist() == [4 / 3, 3]


def test_the_interval_holds_the_mean_and_narrows_with_more_users() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(10, 2, (2000, 1))
    low, high = metrics.bootstrap(values, seed=1)
    few_low, few_high = metrics.bootstrap(values[:50], seed=1)
    assert low[0] < values.mean() < high[0]
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * 2 / math.sqrt(2000), rel=0.1), (
        "as the normal approximation says"
    )
    assert few_high[0] - few_low[0] > 4 * (high[0] - low[0])


def test_an_interval_depends_on_the_seed_and_ignores_nan() -> None:
    values = np.array([[1.0, math.nan], [3.0, 2.0], [5.0, 2.0]])
    low, high = metrics.bootstrap(values, seed=7)
    again = metrics.bootstrap(values, seed=7)
    assert (low.tolist(), high.tolist()) == (again[0].tolist(), again[1].tolist())
    assert low[1] == high[1] == 2


def test_without_users_an_interval_is_nan() -> None:
    low, high = metrics.bootstrap(np.empty((0, 2)), seed=1)
    assert np.isnan([low, high]).all()


def test_a_rank_among_sampled_negatives_is_expected_exactly() -> None:
    # two of three others rank above; one of the three is drawn: it is above with chance 2/3
    hit, gain = metrics.sampled_rank_gain(np.array([2]), np.array([3]), negatives=1, k=1)
    assert (hit[0], gain[0]) == pytest.approx((1 / 3, 1 / 3))
    hit, gain = metrics.sampled_rank_gain(np.array([2]), np.array([3]), negatives=1, k=2)
    assert (hit[0], gain[0]) == pytest.approx((1, 1 / 3 + 2 / 3 / math.log2(3)))


def test_a_rank_among_sampled_negatives_agrees_with_drawing_them() -> None:
    rng = np.random.default_rng(3)
    better, candidates = 40, 500
    drawn = np.array(
        [(rng.choice(candidates, 99, replace=False) < better).sum() for _ in range(20_000)]
    )
    hit, gain = metrics.sampled_rank_gain(
        np.array([better]), np.array([candidates]), negatives=99, k=10
    )
    assert hit[0] == pytest.approx((drawn < 10).mean(), abs=0.01)
    assert gain[0] == pytest.approx(
        np.where(drawn < 10, 1 / np.log2(drawn + 2), 0).mean(), abs=0.01
    )
