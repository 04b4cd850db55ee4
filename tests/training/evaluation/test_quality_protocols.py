"""What `python -m benchmarks quality` counts as a hit, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.ranking.quality_protocols import FULL, PUBLISHED_SPLIT, SAMPLED, Judged, Protocol

NOTHING: Any = None
SEEN = np.array([0, 1], np.int32)


def rows(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_held_out_item_is_ranked_among_items_that_the_user_lacks_below_equal_scores() -> None:
    protocol = Protocol(NOTHING, [], [], FULL, k=2)
    judged = Judged(0, rows(2), negatives=rows(3, 4, 5))

    second = protocol.gains(judged, SEEN, scores(9, 9, 5, 7, 3, 1))
    assert second[FULL, "HR@2"] == second[SAMPLED, "HR@2"] == 1
    assert second[FULL, "NDCG@2"] == second[SAMPLED, "NDCG@2"] == pytest.approx(1 / np.log2(3))
    tied = protocol.gains(judged, SEEN, scores(9, 9, 5, 7, 5, 1))
    assert set(tied.values()) == {0.0}


@pytest.mark.parametrize("held_out", [rows(-1), rows(2)])
def test_an_item_without_a_score_or_in_no_history_is_no_hit(held_out: np.ndarray) -> None:
    protocol = Protocol(NOTHING, [], [], FULL, k=2)
    gains = protocol.gains(
        Judged(0, held_out, negatives=rows(3, 4, 5)), SEEN, scores(9, 9, -np.inf, 7, 3, 1)
    )
    assert set(gains.values()) == {0.0}


def test_recall_divides_by_the_held_out_items_and_ndcg_by_the_best_list() -> None:
    protocol = Protocol(NOTHING, [], [], PUBLISHED_SPLIT, k=2, share="Recall")
    gains = protocol.gains(Judged(0, rows(2, 3, 4)), SEEN, scores(9, 9, 1, 7, 3, 5))
    assert gains[PUBLISHED_SPLIT, "Recall@2"] == pytest.approx(1 / 3)
    assert gains[PUBLISHED_SPLIT, "NDCG@2"] == pytest.approx(1 / (1 + 1 / np.log2(3)))
