"""Diversity by maximal marginal relevance, on short lists with an obvious order."""

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

KINDS = {
    "red-1": "red",
    "red-2": "red",
    "red-3": "red",
    "blue-1": "blue",
    "green-1": "green",
    "blue-2": "blue",
}
ITEMS = [Item(item_id=name, item_type="toy", categories=[kind]) for name, kind in KINDS.items()]
SCORES = np.array([6, 5, 4, 3, 2, 1], dtype=np.float32)


class FixedScoring(Scoring):
    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores

    def reasons(self, rows: Sequence[int]) -> list[list[Reason]]:
        return [[Reason(kind="fixed", text=str(row))] for row in rows]


def toys(**parts: object) -> Recommender:
    return build(Bundle.of("v1", ITEMS, content=ContentModel.fit(ITEMS), **parts))


def order(
    diversity: float,
    limit: int = 6,
    scores: np.ndarray = SCORES,
    recommender: Recommender | None = None,
) -> list[str]:
    current = recommender or toys()
    scoring = Reranker(current.engines, diversity).over(FixedScoring(scores))
    return [current.catalogue.ids[row] for row in scoring.top(current.catalogue.alive, limit)]


def test_every_category_is_shown_before_one_is_repeated() -> None:
    assert order(0.8) == ["red-1", "blue-1", "green-1", "red-2", "red-3", "blue-2"]


def test_low_diversity_leaves_much_better_items_in_front() -> None:
    """By hand, at 0.3, relevance 1, .8, .6, .4, .2, 0: red-2 has .7 x .8 - .3 = .26 and blue-1 .7 x
    .4 = .28; green-1 .14, red-3 .12.
    """
    assert order(0.3) == ["red-1", "blue-1", "red-2", "green-1", "red-3", "blue-2"]
    assert order(0.1) == list(KINDS)


def test_the_best_item_stays_first_at_full_diversity() -> None:
    assert order(1.0)[:3] == ["red-1", "blue-1", "green-1"]


def test_the_list_has_the_requested_length_and_no_duplicates() -> None:
    for limit in range(8):
        ranked = order(0.5, limit)
        assert len(ranked) == len(set(ranked)) == min(limit, 6)


def test_items_of_equal_score_are_spread_by_category() -> None:
    assert order(0.5, scores=np.ones(6, dtype=np.float32))[:3] == ["red-1", "blue-1", "green-1"]


def test_without_content_the_similarity_comes_from_als_factors() -> None:
    factors = np.array([(1, 0), (2, 0), (1, 0), (0, 1), (0, 2), (1, 1)], dtype=np.float32)
    als = ALSModel(IdMap(list(KINDS)), factors, regularization=0.1, alpha=1)
    bare = build(Bundle.of("v1", [], als=als))
    assert order(0.8, 3, recommender=bare) == ["red-1", "blue-1", "blue-2"], (
        "blue-2 lies between the two axes, green-1 on the second"
    )


def test_without_any_similarity_the_order_does_not_change() -> None:
    bare = build(Bundle.of("v1", []), popularity={"unlabelled": [(name, 1.0) for name in KINDS]})
    assert order(0.9, recommender=bare) == list(KINDS)


def test_the_engine_that_fills_the_rest_considers_the_items_before_it() -> None:
    """The first engine places red-1; of the remaining items a red one has the highest score."""
    current = toys()
    reranker = Reranker(current.engines, 0.8)
    rows = current.catalogue.rows
    first = np.zeros(len(rows), dtype=np.bool_)
    first[rows["red-1"]] = True
    assert reranker.over(FixedScoring(SCORES)).top(first, 2) == [rows["red-1"]]
    rest = current.catalogue.alive & ~first
    assert current.catalogue.ids[reranker.over(FixedScoring(SCORES)).top(rest, 1)[0]] == "blue-1"


def answer(diversity: float | None, by_settings: float = 0.0) -> Recommendations:
    request = Request(limit=3, filters=Filters(exclude_seen=False), diversity=diversity)
    return world.recommender(diversity=by_settings).recommend(
        world.user("pay", "gene", events=7), request
    )


def test_a_diverse_answer_has_ranks_and_reasons_and_is_repeatable() -> None:
    plain, diverse = answer(0.0), answer(0.9)
    assert [line.rank for line in diverse.recommendations] == [1, 2, 3]
    assert diverse.recommendations[0].item_id == plain.recommendations[0].item_id
    assert [line.item_id for line in diverse.recommendations] != [
        line.item_id for line in plain.recommendations
    ]
    assert all(line.reasons and line.method == "als" for line in diverse.recommendations)
    assert diverse == answer(0.9)


def test_a_request_without_diversity_follows_the_settings() -> None:
    assert answer(None) == answer(0.0)
    assert answer(None, by_settings=0.9) == answer(0.9)
    assert answer(0.0, by_settings=0.9) == answer(0.0)


@pytest.mark.parametrize("diversity", [0.01, 0.5, 1.0])
def test_diversity_changes_only_the_order_of_a_complete_answer(diversity: float) -> None:
    for state in (
        world.user(),
        world.user("pay"),
        world.user("pay", events=7),
        world.user("pay", events=30),
    ):
        complete = world.recommender().recommend(state, Request(limit=100, diversity=diversity))
        plain = world.recommender().recommend(state, Request(limit=100, diversity=0.0))
        assert {line.item_id for line in complete.recommendations} == {
            line.item_id for line in plain.recommendations
        }
        assert complete.fallbacks == plain.fallbacks
