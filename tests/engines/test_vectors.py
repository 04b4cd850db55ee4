"""Stored ALS vectors and young items: used exactly while they are what they say, and never missed when they are not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from core.types import HistoryEvent, Item, LiveVector, Request, UserState
from engines.als import ALSEngine
from engines.builder import with_catalogue, with_popularity, with_young
from engines.explain import explain
from engines.recommender import Recommender
from models.id_map import IdMap
from models.young import YoungItems
from tests.engines import world

ALL = Request(limit=100, engine="als")
PAYER = msgspec.structs.replace(world.user("pay", "bank", events=7), counts={"like": 7})
"""By the history a friend of fintech."""
TOWARDS_HEALTH = np.array([0.0, 1.0], dtype="<f4").tobytes()
"""No fold-in of that history: whoever ranks health first has used it."""


@pytest.fixture
def recommender() -> Recommender:
    return world.recommender()


def with_vector(recommender: Recommender, state: UserState = PAYER, vector: bytes = TOWARDS_HEALTH, **changed: object) -> UserState:
    fields = {"version": "v1", "made_with": recommender.made_with, "as_of": state.events, "vector": vector, **changed}
    return msgspec.structs.replace(state, als=LiveVector(**fields))  # type: ignore[arg-type]


def first(recommender: Recommender, state: UserState, request: Request = ALL) -> str:
    return recommender.recommend(state, request).recommendations[0].item_id


def test_a_vector_of_just_these_events_and_this_model_answers(recommender: Recommender) -> None:
    state = with_vector(recommender)
    assert recommender.vector_of(state) == "fresh"
    assert first(recommender, state) == "pill"
    assert first(recommender, PAYER) == "coin"


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"as_of": 6}, "stale"),
        ({"as_of": 8}, "stale"),
        ({"made_with": "another model"}, "other_model"),
        ({"made_with": ""}, "other_model"),
        ({"vector": TOWARDS_HEALTH + b"1"}, "missing"),
        ({"vector": b""}, "missing"),
        ({"vector": TOWARDS_HEALTH * 2}, "missing"),
        ({"vector": np.array([np.nan, 1], dtype="<f4").tobytes()}, "fresh"),
        ({"vector": np.array([np.inf, 1], dtype="<f4").tobytes()}, "fresh"),
        ({"vector": bytes(8)}, "fresh"),
    ],
)
def test_any_other_vector_is_folded_in_on_the_spot(recommender: Recommender, changed: dict[str, object], state: str) -> None:
    user = with_vector(recommender, **changed)
    assert recommender.vector_of(user) == state
    assert recommender.recommend(user, ALL) == recommender.recommend(PAYER, ALL)


def test_without_a_stored_vector_or_events_nothing_is_missed(recommender: Recommender) -> None:
    assert recommender.vector_of(PAYER) == "missing"
    assert recommender.vector_of(UserState(user_id="nobody")) is None


def test_the_models_vectors_follow_the_weights_and_the_cap(recommender: Recommender) -> None:
    assert recommender.made_with != world.recommender(history_cap=60).made_with
    assert recommender.made_with == world.recommender().made_with


def test_a_use_case_that_weighs_this_users_events_differently_folds_in(recommender: Recommender) -> None:
    state = with_vector(recommender)
    use_case = recommender.settings.use_cases.by_name["developer_startup"]
    same = msgspec.structs.replace(use_case, weights={**recommender.settings.use_cases.event_types, "view": 77.0})
    other = msgspec.structs.replace(use_case, weights={**recommender.settings.use_cases.event_types, "like": 77.0})
    assert first(recommender, state, Request(limit=9, engine="als", use_case=same)) == "pill"
    assert first(recommender, state, Request(limit=9, engine="als", use_case=other)) == "coin"


def test_the_same_answer_and_reasons_with_and_without_the_stored_fold_in(recommender: Recommender) -> None:
    engine = recommender.engines["als"]
    assert isinstance(engine, ALSEngine)
    vector = engine.fold(PAYER.history, recommender.settings.use_cases).fold.vector
    stored, folded = (recommender.recommend(state, ALL) for state in (with_vector(recommender, vector=vector.tobytes()), PAYER))
    assert stored == folded
    scoring = engine.score(with_vector(recommender, vector=vector.tobytes()), ALL)
    row = engine.catalogue.rows["coin"]
    assert sum(part.contribution or 0 for part in scoring.contributions(row)) == pytest.approx(float(scoring.scores[row]), rel=1e-4)


def test_a_list_without_reasons_never_folds_in(recommender: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    def folded(*_: object) -> None:
        raise AssertionError("folded in")

    monkeypatch.setattr(ALSEngine, "fold", folded)
    answer = recommender.recommend(with_vector(recommender), msgspec.structs.replace(ALL, reasons=False))
    assert answer.method_used == "als"
    assert not any(line.reasons for line in answer.recommendations)


def test_a_vector_without_its_history_is_a_labelled_fallback(recommender: Recommender) -> None:
    """A user deleted between two commands of one read."""
    state = with_vector(recommender, UserState(user_id="ada", events=7, counts={"like": 7}))
    answer = recommender.recommend(state, ALL)
    assert answer.recommendations
    assert ("als", "the user has no history") in [(each.engine, each.cause) for each in answer.fallbacks]


# Young items


def young(recommender: Recommender, made_with: str | None = None, **factors: tuple[float, float]) -> YoungItems:
    matrix = np.array(list(factors.values()), dtype=np.float32).reshape(len(factors), 2)
    return YoungItems(IdMap(list(factors)), matrix, recommender.made_with if made_with is None else made_with)


def test_a_young_item_is_recommended_explained_and_compared_like_any_other(recommender: Recommender) -> None:
    with_new = with_young(recommender, young(recommender, star=(2.0, 0.0), dull=(0.0, 0.1)))
    answer = with_new.recommend(PAYER, ALL)
    assert answer.recommendations[0].item_id == "star"
    assert answer.recommendations[0].reasons[0].items == ["pay", "bank"]
    assert with_new.similar("star", Request(limit=2)).recommendations[0].method == "als"
    assert {line.item_id for line in with_new.similar("star", Request(limit=3)).recommendations} == {"pay", "bank", "coin"}
    assert "star" in [line.item_id for line in with_new.similar("pay", Request(limit=4)).recommendations]
    why = next(view for view in explain(with_new, PAYER, "star", ALL).engines if view.engine == "als")
    assert sum(part.contribution or 0 for part in why.contributions) == pytest.approx(why.score, rel=1e-4)
    assert why.rank == 1
    assert "star" not in recommender.catalogue.rows, "what answers stays as it was"


def test_young_items_never_enter_a_users_vector(recommender: Recommender) -> None:
    state = world.user("pay", "star")
    with_new = with_young(recommender, young(recommender, star=(0.0, 9.0)))
    before = {line.item_id: line.score for line in recommender.recommend(state, ALL).recommendations if line.method == "als"}
    after = {line.item_id: line.score for line in with_new.recommend(state, ALL).recommendations if line.method == "als"}
    assert before == after


def test_factors_of_another_model_are_left_out(recommender: Recommender) -> None:
    with_new = with_young(recommender, young(recommender, "another", star=(2.0, 0.0)))
    assert "star" not in [line.item_id for line in with_new.recommend(PAYER, ALL).recommendations]


def test_young_items_change_and_go(recommender: Recommender) -> None:
    one = with_young(recommender, young(recommender, star=(2.0, 0.0)))
    other = with_young(one, young(recommender, star=(0.0, 2.0), next=(3.0, 0.0)))
    assert first(other, PAYER) == "next"
    gone = with_young(other, YoungItems.none())
    assert not [line for line in gone.recommend(PAYER, ALL).recommendations if line.item_id in ("star", "next") and line.method == "als"]


def test_the_catalogue_rules_over_young_items_too(recommender: Recommender) -> None:
    factors = young(recommender, star=(2.0, 0.0))
    entry = Item(item_id="star", item_type="startup", categories=["fintech"], title="Star")
    with_new = with_young(recommender, factors)
    known = with_catalogue(with_new, with_new.catalogue.updated([entry]))
    assert known.recommend(PAYER, ALL).recommendations[0].metadata["title"] == "Star"
    assert first(known, PAYER) == "star"
    hidden = with_catalogue(known, known.catalogue.updated([msgspec.structs.replace(entry, available=False)]))
    assert "star" not in [line.item_id for line in hidden.recommend(PAYER, ALL).recommendations]
    deleted = with_catalogue(known, known.catalogue.updated([], ["star"]))
    assert "star" not in [line.item_id for line in with_young(deleted, factors).recommend(PAYER, ALL).recommendations]
    first_entry = with_young(with_catalogue(recommender, recommender.catalogue.updated([entry])), factors)
    assert first(first_entry, PAYER) == "star"


def test_an_item_that_the_model_knows_keeps_its_own_factors(recommender: Recommender) -> None:
    with_known = with_young(recommender, young(recommender, coin=(0.0, 9.0)))
    assert with_known.recommend(PAYER, ALL) == recommender.recommend(PAYER, ALL)


def test_popularity_and_young_items_do_not_undo_each_other(recommender: Recommender) -> None:
    with_new = with_young(recommender, young(recommender, star=(2.0, 0.0)))
    assert first(with_popularity(with_new, {"unlabelled": [("pill", 9.0)]}), PAYER) == "star"
    assert first(with_popularity(with_new, {"unlabelled": [("unheard", 9.0)]}), PAYER) == "star"


def test_a_history_of_young_items_alone_has_nothing_to_go_by(recommender: Recommender) -> None:
    with_new = with_young(recommender, young(recommender, star=(2.0, 0.0)))
    state = UserState(user_id="x", events=7, history=[HistoryEvent(1, "like", "star")])
    assert "als" in [fallback.engine for fallback in with_new.recommend(state, ALL).fallbacks]
