"""Stored ALS vectors and new items: used if and only if they are fresh and of the same model."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from core.types import HistoryEvent, Item, LiveVector, Request, UserState
from engines.als import ALSEngine
from engines.builder import with_catalogue, with_new_items, with_popularity
from engines.explain import explain
from engines.recommender import Recommender
from models.als.new_items import NewItemFactors
from models.id_map import IdMap
from tests.engines import world

ALL = Request(limit=100, engine="als")
PAYER = msgspec.structs.replace(world.user("pay", "bank", events=7), counts={"like": 7})
"""A user with a fintech history."""
TOWARDS_HEALTH = np.array([0.0, 1.0], dtype="<f4").tobytes()
"""Not a fold-in of that history: an answer with health first has used this vector."""


@pytest.fixture
def recommender() -> Recommender:
    return world.recommender()


def with_vector(
    recommender: Recommender,
    state: UserState = PAYER,
    vector: bytes = TOWARDS_HEALTH,
    **changed: object,
) -> UserState:
    fields = {
        "version": "v1",
        "made_with": recommender.made_with,
        "as_of": state.events,
        "vector": vector,
        **changed,
    }
    return msgspec.structs.replace(state, als=LiveVector(**fields))  # type: ignore[arg-type]


def first(recommender: Recommender, state: UserState, request: Request = ALL) -> str:
    return recommender.recommend(state, request).recommendations[0].item_id


def test_a_fresh_vector_is_used(recommender: Recommender) -> None:
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
def test_any_other_vector_is_replaced_by_a_fold_in(
    recommender: Recommender, changed: dict[str, object], state: str
) -> None:
    user = with_vector(recommender, **changed)
    assert recommender.vector_of(user) == state
    assert recommender.recommend(user, ALL) == recommender.recommend(PAYER, ALL)


def test_vector_state_without_a_stored_vector_or_without_events(recommender: Recommender) -> None:
    assert recommender.vector_of(PAYER) == "missing"
    assert recommender.vector_of(UserState(user_id="nobody")) is None


def test_made_with_changes_with_the_history_cap(recommender: Recommender) -> None:
    assert recommender.made_with != world.recommender(history_cap=60).made_with
    assert recommender.made_with == world.recommender().made_with


def test_a_use_case_with_other_weights_for_the_users_events_folds_in(
    recommender: Recommender,
) -> None:
    state = with_vector(recommender)
    use_case = recommender.settings.use_cases.by_name["developer_startup"]
    same = msgspec.structs.replace(
        use_case, weights={**recommender.settings.use_cases.event_types, "view": 77.0}
    )
    other = msgspec.structs.replace(
        use_case, weights={**recommender.settings.use_cases.event_types, "like": 77.0}
    )
    assert first(recommender, state, Request(limit=9, engine="als", use_case=same)) == "pill"
    assert first(recommender, state, Request(limit=9, engine="als", use_case=other)) == "coin"


def test_answer_and_reasons_are_equal_with_and_without_the_stored_vector(
    recommender: Recommender,
) -> None:
    engine = recommender.engines["als"]
    assert isinstance(engine, ALSEngine)
    vector = engine.fold(PAYER.history, recommender.settings.use_cases).fold.vector
    stored, folded = (
        recommender.recommend(state, ALL)
        for state in (with_vector(recommender, vector=vector.tobytes()), PAYER)
    )
    assert stored == folded
    scoring = engine.score(with_vector(recommender, vector=vector.tobytes()), ALL)
    row = engine.catalogue.rows["coin"]
    assert sum(part.contribution or 0 for part in scoring.contributions(row)) == pytest.approx(
        float(scoring.scores[row]), rel=1e-4
    )


def test_a_request_without_reasons_does_not_fold_in(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folded(*_: object) -> None:
        raise AssertionError("folded in")

    monkeypatch.setattr(ALSEngine, "fold", folded)
    answer = recommender.recommend(
        with_vector(recommender), msgspec.structs.replace(ALL, reasons=False)
    )
    assert answer.method_used == "als"
    assert not any(line.reasons for line in answer.recommendations)


def test_a_vector_without_history_is_a_fallback_with_a_cause(recommender: Recommender) -> None:
    """As when the user is deleted between two commands of one read."""
    state = with_vector(recommender, UserState(user_id="ada", events=7, counts={"like": 7}))
    answer = recommender.recommend(state, ALL)
    assert answer.recommendations
    assert ("als", "the user has no history") in [
        (fallback.engine, fallback.cause) for fallback in answer.fallbacks
    ]


# New items


def new_items(
    recommender: Recommender, made_with: str | None = None, **factors: tuple[float, float]
) -> NewItemFactors:
    matrix = np.array(list(factors.values()), dtype=np.float32).reshape(len(factors), 2)
    return NewItemFactors(
        IdMap(list(factors)), matrix, recommender.made_with if made_with is None else made_with
    )


def test_a_new_item_is_recommended_explained_and_compared_like_any_other(
    recommender: Recommender,
) -> None:
    with_new = with_new_items(recommender, new_items(recommender, star=(2.0, 0.0), dull=(0.0, 0.1)))
    answer = with_new.recommend(PAYER, ALL)
    assert answer.recommendations[0].item_id == "star"
    assert answer.recommendations[0].reasons[0].items == ["pay", "bank"]
    assert with_new.similar("star", Request(limit=2)).recommendations[0].method == "als"
    assert {
        line.item_id for line in with_new.similar("star", Request(limit=3)).recommendations
    } == {"pay", "bank", "coin"}
    assert "star" in [
        line.item_id for line in with_new.similar("pay", Request(limit=4)).recommendations
    ]
    why = next(
        view for view in explain(with_new, PAYER, "star", ALL).engines if view.engine == "als"
    )
    assert sum(part.contribution or 0 for part in why.contributions) == pytest.approx(
        why.score, rel=1e-4
    )
    assert why.rank == 1
    assert "star" not in recommender.catalogue.rows, "the previous recommender is unchanged"


def test_new_items_never_enter_a_user_vector(recommender: Recommender) -> None:
    state = world.user("pay", "star")
    with_new = with_new_items(recommender, new_items(recommender, star=(0.0, 9.0)))
    before = {
        line.item_id: line.score
        for line in recommender.recommend(state, ALL).recommendations
        if line.method == "als"
    }
    after = {
        line.item_id: line.score
        for line in with_new.recommend(state, ALL).recommendations
        if line.method == "als"
    }
    assert before == after


def test_factors_of_another_model_are_ignored(recommender: Recommender) -> None:
    with_new = with_new_items(recommender, new_items(recommender, "another", star=(2.0, 0.0)))
    assert "star" not in [line.item_id for line in with_new.recommend(PAYER, ALL).recommendations]


def test_newer_factors_replace_the_previous_ones(recommender: Recommender) -> None:
    with_star = with_new_items(recommender, new_items(recommender, star=(2.0, 0.0)))
    with_both = with_new_items(with_star, new_items(recommender, star=(0.0, 2.0), next=(3.0, 0.0)))
    assert first(with_both, PAYER) == "next"
    without = with_new_items(with_both, NewItemFactors.none())
    assert not [
        line
        for line in without.recommend(PAYER, ALL).recommendations
        if line.item_id in ("star", "next") and line.method == "als"
    ]


def test_the_catalogue_decides_whether_a_new_item_is_shown(recommender: Recommender) -> None:
    factors = new_items(recommender, star=(2.0, 0.0))
    entry = Item(item_id="star", item_type="startup", categories=["fintech"], title="Star")
    with_new = with_new_items(recommender, factors)
    with_entry = with_catalogue(with_new, with_new.catalogue.updated([entry]))
    assert with_entry.recommend(PAYER, ALL).recommendations[0].metadata["title"] == "Star"
    assert first(with_entry, PAYER) == "star"
    hidden = with_catalogue(
        with_entry, with_entry.catalogue.updated([msgspec.structs.replace(entry, available=False)])
    )
    assert "star" not in [line.item_id for line in hidden.recommend(PAYER, ALL).recommendations]
    deleted = with_catalogue(with_entry, with_entry.catalogue.updated([], ["star"]))
    assert "star" not in [
        line.item_id
        for line in with_new_items(deleted, factors).recommend(PAYER, ALL).recommendations
    ]
    first_entry = with_new_items(
        with_catalogue(recommender, recommender.catalogue.updated([entry])), factors
    )
    assert first(first_entry, PAYER) == "star"


def test_an_item_of_the_model_keeps_its_own_factors(recommender: Recommender) -> None:
    with_known = with_new_items(recommender, new_items(recommender, coin=(0.0, 9.0)))
    assert with_known.recommend(PAYER, ALL) == recommender.recommend(PAYER, ALL)


def test_newer_popularity_does_not_remove_new_items(recommender: Recommender) -> None:
    with_new = with_new_items(recommender, new_items(recommender, star=(2.0, 0.0)))
    assert first(with_popularity(with_new, {"unlabelled": [("pill", 9.0)]}), PAYER) == "star"
    assert first(with_popularity(with_new, {"unlabelled": [("unheard", 9.0)]}), PAYER) == "star"


def test_a_history_of_new_items_alone_falls_back(recommender: Recommender) -> None:
    with_new = with_new_items(recommender, new_items(recommender, star=(2.0, 0.0)))
    state = UserState(user_id="x", events=7, history=[HistoryEvent(1, "like", "star")])
    assert "als" in [fallback.engine for fallback in with_new.recommend(state, ALL).fallbacks]
