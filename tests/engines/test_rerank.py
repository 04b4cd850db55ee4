"""Diversity: what maximal marginal relevance promises, on lists whose right order a reader can see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from core.types import Filters, Item, Reason, Recommendations, Request
from engines.base import Scoring
from engines.builder import build
from engines.recommender import Recommender
from engines.selection.rerank import Reranker
from models.als import ALSModel
from models.bundle import Bundle
from models.content import ContentModel
from models.id_map import IdMap
from tests.engines import world

KINDS = {"red-1": "red", "red-2": "red", "red-3": "red", "blue-1": "blue", "green-1": "green", "blue-2": "blue"}
ITEMS = [Item(item_id=name, item_type="toy", categories=[kind]) for name, kind in KINDS.items()]
SCORES = np.array([6, 5, 4, 3, 2, 1], dtype=np.float32)


class Given(Scoring):
    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        return [[Reason(kind="given", text=str(row))] for row in rows]


def toys(**parts: object) -> Recommender:
    return build(Bundle.of("v1", ITEMS, content=ContentModel.fit(ITEMS), **parts))


def order(diversity: float, limit: int = 6, scores: np.ndarray = SCORES, recommender: Recommender | None = None) -> list[str]:
    now = recommender or toys()
    scoring = Reranker(now.engines, diversity).over(Given(scores))
    return [now.catalogue.ids[row] for row in scoring.top(now.catalogue.alive, limit)]


def test_every_kind_is_shown_before_a_kind_comes_again() -> None:
    assert order(0.8) == ["red-1", "blue-1", "green-1", "red-2", "red-3", "blue-2"]


def test_a_little_diversity_leaves_what_is_much_better_in_front() -> None:
    """By hand, at 0.3, relevance 1, .8, .6, .4, .2, 0: red-2 has .7 x .8 - .3 = .26 and blue-1 .7 x .4 = .28; green-1 .14, red-3 .12."""
    assert order(0.3) == ["red-1", "blue-1", "red-2", "green-1", "red-3", "blue-2"]
    assert order(0.1) == list(KINDS)


def test_the_best_item_stays_first_and_all_diversity_ignores_relevance_after_it() -> None:
    assert order(1.0)[:3] == ["red-1", "blue-1", "green-1"]


def test_the_list_is_as_long_as_asked_and_has_no_item_twice() -> None:
    for limit in range(8):
        found = order(0.5, limit)
        assert len(found) == len(set(found)) == min(limit, 6)


def test_equal_scores_are_spread_and_keep_their_order_otherwise() -> None:
    assert order(0.5, scores=np.ones(6, dtype=np.float32))[:3] == ["red-1", "blue-1", "green-1"]


def test_where_content_says_nothing_als_factors_tell_likeness() -> None:
    factors = np.array([(1, 0), (2, 0), (1, 0), (0, 1), (0, 2), (1, 1)], dtype=np.float32)
    als = ALSModel(IdMap(list(KINDS)), factors, regularization=0.1, alpha=1)
    bare = build(Bundle.of("v1", [], als=als))
    assert order(0.8, 3, recommender=bare) == ["red-1", "blue-1", "blue-2"], "blue-2 lies between the two axes, green-1 on the second"


def test_without_anything_to_compare_by_the_order_stays() -> None:
    bare = build(Bundle.of("v1", []), popularity={"unlabelled": [(name, 1.0) for name in KINDS]})
    assert order(0.9, recommender=bare) == list(KINDS)


def test_the_engine_that_fills_the_rest_looks_at_the_places_before_it() -> None:
    """One engine has taken red-1; the next has a red and a blue one left, and the red one scores higher."""
    now = toys()
    reranker = Reranker(now.engines, 0.8)
    rows = now.catalogue.rows
    first = np.zeros(len(rows), dtype=np.bool_)
    first[rows["red-1"]] = True
    assert reranker.over(Given(SCORES)).top(first, 2) == [rows["red-1"]]
    rest = now.catalogue.alive & ~first
    assert now.catalogue.ids[reranker.over(Given(SCORES)).top(rest, 1)[0]] == "blue-1"


def answer(diversity: float | None, by_settings: float = 0.0) -> Recommendations:
    asked = Request(limit=3, filters=Filters(exclude_seen=False), diversity=diversity)
    return world.recommender(diversity=by_settings).recommend(world.user("pay", "gene", events=7), asked)


def test_a_diverse_answer_keeps_scores_reasons_and_ranks_and_is_the_same_each_time() -> None:
    plain, diverse = answer(0.0), answer(0.9)
    assert [line.rank for line in diverse.recommendations] == [1, 2, 3]
    assert diverse.recommendations[0].item_id == plain.recommendations[0].item_id
    assert [line.item_id for line in diverse.recommendations] != [line.item_id for line in plain.recommendations]
    assert all(line.reasons and line.method == "als" for line in diverse.recommendations)
    assert diverse == answer(0.9)


def test_a_request_that_does_not_say_follows_the_settings() -> None:
    assert answer(None) == answer(0.0)
    assert answer(None, by_settings=0.9) == answer(0.9)
    assert answer(0.0, by_settings=0.9) == answer(0.0)


@pytest.mark.parametrize("diversity", [0.01, 0.5, 1.0])
def test_no_engine_of_the_chain_minds(diversity: float) -> None:
    for state in (world.user(), world.user("pay"), world.user("pay", events=7), world.user("pay", events=30)):
        found = world.recommender().recommend(state, Request(limit=100, diversity=diversity))
        plain = world.recommender().recommend(state, Request(limit=100, diversity=0.0))
        assert {line.item_id for line in found.recommendations} == {line.item_id for line in plain.recommendations}
        assert found.fallbacks == plain.fallbacks
