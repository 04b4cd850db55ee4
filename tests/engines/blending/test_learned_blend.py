"""The learned blend: weights that depend on the number of events, and explanations that add up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import ModelCorrupt
from core.settings import Settings
from core.types import Request
from engines.blending.scales import blend_scores, reshape
from engines.builder import build
from engines.explain import explain
from models.ensemble import Blend, Learned
from tests.engines import world

ALL = Request(limit=100)
TURNING = Learned(
    few=4,
    many=64,
    weights={
        "als": ((0.0, 0.0, 0.0), (1.0, 2.0, 1.0)),
        "content_based": ((0.0, 3.0, 1.0), (0.0, 0.0, 0.0)),
    },
)
"""Content for users with at most four events, ALS for users with at least 64."""


def blend(learned: Learned = TURNING) -> Blend:
    return Blend(weights={"als": 0.5, "content_based": 0.5}, method="learned", learned=learned)


@pytest.mark.parametrize(
    ("events", "part"), [(0, 0), (1, 0), (4, 0), (16, 0.5), (64, 1), (1000, 1)]
)
def test_weights_are_interpolated_by_the_logarithm_of_the_events(events: int, part: float) -> None:
    """16 is halfway: four times 4, and a quarter of 64."""
    numbers = TURNING.at(events)
    assert sum(numbers["als"]) == pytest.approx(part)
    assert sum(numbers["content_based"]) == pytest.approx(1 - part)
    assert numbers["content_based"] == pytest.approx((0, (1 - part) * 3 / 4, (1 - part) / 4))


def test_equal_ends_give_the_mean_of_both_weights() -> None:
    learned_once = Learned(few=9, many=9, weights={"als": ((1.0, 0.0, 0.0), (0.0, 0.0, 3.0))})
    assert learned_once.at(2) == learned_once.at(900) == {"als": (0.25, 0, 0.75)}


def test_reshaped_scores_by_hand() -> None:
    """1/2 x sqrt(1/4) + 1/4 x 1/4 + 1/4 x (1/4)^2 = 1/4 + 1/16 + 1/64. 0 and 1 do not change."""
    scaled = np.array([0, 0.25, 1], dtype=np.float32)
    assert reshape(scaled, (0.5, 0.25, 0.25)).tolist() == [0, 0.328125, 1]
    none = np.zeros(0, dtype=np.intp)
    scores, parts = blend_scores(
        "min_max", [scaled * 8 - 3, -scaled], [0.75, 0.25], none, [(0.5, 0.25, 0.25), (0, 1, 0)]
    )
    assert parts.tolist() == [[0, 0.328125, 1], [1, 0.75, 0]]
    assert scores.tolist() == [0.25, 0.75 * 0.328125 + 0.25 * 0.75, 0.75]


@pytest.mark.parametrize("events", [2, 16, 100])
def test_explain_adds_up_to_the_score_for_any_number_of_events(events: int) -> None:
    recommender = build(world.bundle(ensemble=blend()), settings=Settings())
    user = world.user("pay", interests=["fintech"], events=events)
    request = Request(limit=100, engine="ensemble")
    lines = {
        line.item_id: line.score
        for line in recommender.recommend(user, request).recommendations
        if line.method == "ensemble"
    }
    assert lines
    for item_id, score in lines.items():
        explanation = explain(recommender, user, item_id, request)
        views = {view.engine: view for view in explanation.engines}
        part = TURNING.part(events)
        assert (views["als"].weight, views["content_based"].weight) == pytest.approx(
            (part, 1 - part)
        )
        assert score == pytest.approx(
            sum((view.weight or 0) * (view.normalised or 0) for view in explanation.engines),
            rel=1e-5,
            abs=1e-7,
        )
        assert score == pytest.approx(
            sum(reason.contribution or 0 for reason in views["ensemble"].contributions),
            rel=1e-5,
            abs=1e-7,
        )


def test_few_events_give_the_order_of_one_part_and_many_that_of_the_other() -> None:
    recommender = build(world.bundle(ensemble=blend()), settings=Settings())
    for events, engine_name in ((4, "content_based"), (64, "als")):
        user = world.user("pay", interests=["fintech"], events=events)
        blended = recommender.engines["ensemble"].score(user, ALL).scores
        scores = recommender.engines[engine_name].score(user, ALL).scores
        scored = np.flatnonzero(np.isfinite(scores))
        assert (
            np.argsort(-blended[scored], kind="stable").tolist()
            == np.argsort(-scores[scored], kind="stable").tolist()
        )


def test_a_learned_blend_is_loaded_unchanged_and_an_invalid_one_is_rejected(tmp_path: Path) -> None:
    blend().save(tmp_path)
    assert Blend.load(tmp_path) == blend()
    ends = TURNING.weights["als"]
    for learned in (
        Learned(few=0, many=9, weights=TURNING.weights),
        Learned(few=4, many=64, weights={"als": ends}),
        Learned(
            few=4,
            many=64,
            weights={"als": ends, "content_based": ((0.0, -1.0, 2.0), (0.0, 0.0, 0.0))},
        ),
        Learned(
            few=4,
            many=64,
            weights={"als": ends, "content_based": ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))},
        ),
    ):
        blend(learned).save(tmp_path)
        with pytest.raises(ModelCorrupt, match="learned weights must be"):
            Blend.load(tmp_path)
    for wrong in (
        Blend(weights={"als": 1}, method="learned"),
        Blend(weights={"als": 1}, learned=TURNING),
    ):
        wrong.save(tmp_path)
        with pytest.raises(ModelCorrupt, match="need each other"):
            Blend.load(tmp_path)
