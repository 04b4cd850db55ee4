"""The scales of a blend, by hand: min-max and reciprocal rank, missing scores and dead rows."""

from __future__ import annotations

import numpy as np
import pytest

from engines.base import NO_OPINION
from engines.blending.scales import blend_scores

NONE = np.zeros(0, dtype=np.intp)


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_min_max_by_hand() -> None:
    """The ranges 2 to 6 and -10 to 10 become 0 to 1. The first item: 0.75 x 1/4 + 0.25 x 1/2."""
    scores, scaled = blend_scores(
        "min_max", [floats(3, 6, 2), floats(0, -10, 10)], [0.75, 0.25], NONE
    )
    assert scaled.tolist() == [[0.25, 1, 0], [0.5, 0, 1]]
    assert scores.tolist() == [0.3125, 0.75, 0.25]


def test_a_blend_by_ranks_by_hand() -> None:
    """(60 + 1) / (60 + rank); the two equal scores share rank 2, and the next has rank 4."""
    scores, scaled = blend_scores("rank", [floats(5, 9, 5, 1)], [1.0], NONE)
    assert scores == pytest.approx([61 / 62, 1, 61 / 62, 61 / 64])
    assert scaled[0] == pytest.approx(scores)


@pytest.mark.parametrize("method", ["min_max", "rank"])
def test_an_item_without_a_score_in_one_part_gets_0_there_and_in_all_parts_is_not_scored(
    method: str,
) -> None:
    scores, scaled = blend_scores(
        method,
        [floats(1, NO_OPINION, 2, NO_OPINION), floats(4, 8, 2, NO_OPINION)],
        [0.5, 0.5],
        NONE,
    )  # type: ignore[arg-type]
    assert scaled[:, 1].tolist() == [0, 1]
    assert scores[1] == 0.5
    assert scores[3] == NO_OPINION
    assert np.isfinite(scores[:3]).all()


@pytest.mark.parametrize("method", ["min_max", "rank"])
def test_dead_rows_do_not_affect_the_blend(method: str) -> None:
    """A dead row of an item must not extend the scale or take a rank."""
    parts = [floats(1, 2, 3), floats(9, 5, 7)]
    alone, _ = blend_scores(method, parts, [0.5, 0.5], NONE)  # type: ignore[arg-type]
    longer = [floats(-50, *part, 99) for part in parts]
    scores, _ = blend_scores(method, longer, [0.5, 0.5], np.array([0, 4]))  # type: ignore[arg-type]
    assert scores[1:4] == pytest.approx(alone)
    assert scores[[0, 4]].tolist() == [NO_OPINION, NO_OPINION]
    assert longer[0][0] == -50, "an engine may share its scores between readers"


@pytest.mark.parametrize("method", ["min_max", "rank"])
def test_scores_that_are_all_equal_or_absent_do_not_change_the_order(method: str) -> None:
    parts = [floats(2, 2, 2), floats(*[NO_OPINION] * 3), floats(1, 2, 3)]
    scores, scaled = blend_scores(method, parts, [0.25, 0.25, 0.5], NONE)  # type: ignore[arg-type]
    assert scaled[:2].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert scores.argsort().tolist() == [0, 1, 2]
    assert [len(array) for array in blend_scores(method, [floats()], [1.0], NONE)] == [0, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["min_max", "rank"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_score_of_nan_or_infinity_is_rejected(method: str, wrong: float) -> None:
    with pytest.raises(ValueError, match="a score is"):
        blend_scores(method, [floats(1, wrong, 2)], [1.0], NONE)  # type: ignore[arg-type]
