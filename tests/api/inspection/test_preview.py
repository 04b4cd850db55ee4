"""What a user would get: each engine beside the answer, and another history than the stored one."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from redis import Redis

from api.routes.inspection.changed_history import HistoryChanges
from api.schemas.preview import EngineAnswer, Preview
from core.settings import Settings
from core.types import HistoryEvent, LiveVector, Recommendation, UserState
from engines.explain import Explanation
from store.state import keys
from tests.api.world import Client, checked, publish, remember, serving


def preview(api: Client, user_id: str, query: str = "") -> Preview:
    answer = api.get(f"/api/preview/{user_id}{query}")
    assert answer.status_code == 200, answer.text
    return checked(answer.json(), Preview)


def of(answer: Preview, engine: str) -> EngineAnswer:
    return next(entry for entry in answer.engines if entry.engine == engine)


def ids(lines: list[Recommendation]) -> list[str]:
    return [line.item_id for line in lines]


def test_the_answer_stands_beside_what_each_engine_alone_would_answer(api: Client) -> None:
    answer = preview(api, "warm", "?limit=3")
    recommended = api.get("/api/recommendations/warm?limit=3").json()
    assert [line["item_id"] for line in recommended["recommendations"]] == ids(
        answer.answer.recommendations
    )
    assert answer.routing.startswith("7 interactions: ")
    assert [entry.engine for entry in answer.engines] == [
        "ensemble",
        "als",
        "two_tower",
        "content_based",
        "popular",
    ]
    als, popular = of(answer, "als"), of(answer, "popular")
    assert {line.method for line in als.recommendations} == {"als"}
    assert ids(als.recommendations) != ids(popular.recommendations)
    assert als.recommendations[0].reasons
    two_tower = of(answer, "two_tower")
    assert (two_tower.recommendations, two_tower.cause is None) == ([], False), (
        "an engine that cannot answer says why, and others do not fill its places"
    )


def test_one_may_try_filters_diversity_and_exploration(api: Client) -> None:
    everything = preview(api, "warm").answer.recommendations
    health = preview(api, "warm", "?category=health").answer.recommendations
    assert 0 < len(health) < len(everything)
    assert api.get("/api/preview/warm?diversity=2").status_code == 422
    explored = preview(api, "warm", "?explore=1&limit=2").answer.recommendations
    assert len(explored) == 2


def test_a_changed_history_changes_the_answer_and_nothing_is_stored(
    api: Client, redis: Redis
) -> None:
    before = redis.hgetall(keys.ONLY.user("warm")), redis.lrange(keys.ONLY.history("warm"), 0, -1)
    plain = preview(api, "warm", "?limit=2&engine=als")
    changed = preview(
        api, "warm", "?limit=2&engine=als&event=like:pill&event=like:scan&without=pay&without=bank"
    )
    assert changed.interaction_count == plain.interaction_count
    assert ids(changed.answer.recommendations) != ids(plain.answer.recommendations)
    assert "pill" not in ids(changed.answer.recommendations), "they would have it already"
    stored = redis.hgetall(keys.ONLY.user("warm")), redis.lrange(keys.ONLY.history("warm"), 0, -1)
    assert stored == before
    again = preview(api, "warm", "?limit=2&engine=als")
    assert again.answer.recommendations == plain.answer.recommendations
    assert again.engines == plain.engines


def test_enough_events_lead_to_the_next_engine(api: Client) -> None:
    events = "&".join("event=like:pay" for _ in range(5))
    assert preview(api, "nobody").answer.method_used in ("content_based", "popular")
    assert preview(api, "nobody", f"?{events}").answer.method_used == "als"


def test_explain_answers_for_the_changed_history_too(api: Client) -> None:
    plain = checked(api.get("/api/explain/warm/coin").json(), Explanation)
    assert plain.removed_by == []
    after = checked(api.get("/api/explain/warm/coin?event=like:coin").json(), Explanation)
    assert after.removed_by == ["the user has already interacted with it"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("event=admire:pay", "like"),
        ("event=like:", "event"),
        ("event=pay", "type:item"),
        ("without=", "without"),
        ("&".join(["event=like:pay"] * 51), "50"),
        ("evnt=like:pay", "unknown parameter"),
    ],
)
def test_a_wrong_change_is_named(api: Client, query: str, word: str) -> None:
    answer = api.get(f"/api/preview/warm?{query}")
    assert answer.status_code == 422
    assert word in answer.json()["detail"]


def test_an_id_with_any_character_may_be_tried(settings: Settings, redis: Redis) -> None:
    publish(settings)
    remember(redis, "a/b", "pay", events=7)
    with serving(settings) as api:
        answer = preview(
            api, "-", f"?user_id={quote('a/b', safe='')}&without=x%26y&event=like:%C3%BC"
        )
    assert (answer.user_id, answer.interaction_count) == ("a/b", 8)


def test_previews_count_in_no_metric_of_answers(api: Client) -> None:
    def count() -> list[str]:
        lines: list[Any] = api.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith("eddyline_api_recommendations_total{")]

    before = count()
    preview(api, "warm")
    assert count() == before


def test_a_stored_vector_is_not_used_for_another_history() -> None:
    """Two events more and two fewer: the number of events alone would not show the difference."""
    vector = LiveVector("v", "m", 2, b"")
    history = [HistoryEvent(1, "like", "pay"), HistoryEvent(2, "like", "bank")]
    state = UserState(user_id="u", events=7, counts={"like": 7}, history=history, als=vector)
    assert HistoryChanges().apply(state) is state
    added = (("view", "coin"), ("like", "pill"))
    changed = HistoryChanges(added, frozenset({"pay", "bank"})).apply(state)
    assert (changed.als, changed.events, changed.counts) == (None, 7, {"like": 6, "view": 1})
    assert [event.item_id for event in changed.history] == ["coin", "pill"]
    assert state.als is vector
