"""A learned blend as it serves: weights that follow the user's events, and explanations that still add up."""

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
TURNING = Learned(few=4, many=64, weights={"als": ((0.0, 0.0, 0.0), (1.0, 2.0, 1.0)), "content_based": ((0.0, 3.0, 1.0), (0.0, 0.0, 0.0))})
"""Content for users of four events and fewer, ALS for those of 64 and more."""


def blend(learned: Learned = TURNING) -> Blend:
    return Blend(weights={"als": 0.5, "content_based": 0.5}, fusion="learned", learned=learned)


@pytest.mark.parametrize(("events", "part"), [(0, 0), (1, 0), (4, 0), (16, 0.5), (64, 1), (1000, 1)])
def test_weights_go_from_few_events_to_many_by_their_log(events: int, part: float) -> None:
    """16 is four times 4, and 64 four times 16: half way."""
    numbers = TURNING.at(events)
    assert sum(numbers["als"]) == pytest.approx(part)
    assert sum(numbers["content_based"]) == pytest.approx(1 - part)
    assert numbers["content_based"] == pytest.approx((0, (1 - part) * 3 / 4, (1 - part) / 4))


def test_users_of_one_length_have_one_set_of_weights() -> None:
    one = Learned(few=9, many=9, weights={"als": ((1.0, 0.0, 0.0), (0.0, 0.0, 3.0))})
    assert one.at(2) == one.at(900) == {"als": (0.25, 0, 0.75)}


def test_a_bend_by_hand() -> None:
    """Half of the root of 1/4, a quarter of itself and a quarter of its square: 1/4 + 1/16 + 1/64. 0 and 1 stay."""
    scaled = np.array([0, 0.25, 1], dtype=np.float32)
    assert reshape(scaled, (0.5, 0.25, 0.25)).tolist() == [0, 0.328125, 1]
    none = np.zeros(0, dtype=np.intp)
    scores, parts = blend_scores("min_max", [scaled * 8 - 3, -scaled], [0.75, 0.25], none, [(0.5, 0.25, 0.25), (0, 1, 0)])
    assert parts.tolist() == [[0, 0.328125, 1], [1, 0.75, 0]]
    assert scores.tolist() == [0.25, 0.75 * 0.328125 + 0.25 * 0.75, 0.75]


@pytest.mark.parametrize("events", [2, 16, 100])
def test_explain_adds_up_to_the_score_for_users_of_any_length(events: int) -> None:
    recommender = build(world.bundle(ensemble=blend()), settings=Settings())
    user = world.user("pay", interests=["fintech"], events=events)
    asked = Request(limit=100, engine="ensemble")
    lines = {line.item_id: line.score for line in recommender.recommend(user, asked).recommendations if line.method == "ensemble"}
    assert lines
    for item_id, score in lines.items():
        found = explain(recommender, user, item_id, asked)
        views = {view.engine: view for view in found.engines}
        part = TURNING.part(events)
        assert (views["als"].weight, views["content_based"].weight) == pytest.approx((part, 1 - part))
        assert score == pytest.approx(sum((view.weight or 0) * (view.normalised or 0) for view in found.engines), rel=1e-5, abs=1e-7)
        assert score == pytest.approx(sum(each.contribution or 0 for each in views["ensemble"].contributions), rel=1e-5, abs=1e-7)


def test_who_has_few_events_is_answered_as_by_one_part_and_who_has_many_as_by_the_other() -> None:
    recommender = build(world.bundle(ensemble=blend()), settings=Settings())
    for events, alone in ((4, "content_based"), (64, "als")):
        user = world.user("pay", interests=["fintech"], events=events)
        mixed = recommender.engines["ensemble"].score(user, ALL).scores
        scores = recommender.engines[alone].score(user, ALL).scores
        known = np.flatnonzero(np.isfinite(scores))
        assert np.argsort(-mixed[known], kind="stable").tolist() == np.argsort(-scores[known], kind="stable").tolist()


def test_it_travels_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    blend().save(tmp_path)
    assert Blend.load(tmp_path) == blend()
    ends = TURNING.weights["als"]
    for learned in (
        Learned(few=0, many=9, weights=TURNING.weights),
        Learned(few=4, many=64, weights={"als": ends}),
        Learned(few=4, many=64, weights={"als": ends, "content_based": ((0.0, -1.0, 2.0), (0.0, 0.0, 0.0))}),
        Learned(few=4, many=64, weights={"als": ends, "content_based": ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))}),
    ):
        blend(learned).save(tmp_path)
        with pytest.raises(ModelCorrupt, match="learned weights must be"):
            Blend.load(tmp_path)
    for wrong in (Blend(weights={"als": 1}, fusion="learned"), Blend(weights={"als": 1}, learned=TURNING)):
        wrong.save(tmp_path)
        with pytest.raises(ModelCorrupt, match="need the fusion"):
            Blend.load(tmp_path)
