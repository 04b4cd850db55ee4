"""The ensemble, diversity and exploration, as an application engineer sees them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from redis import Redis

from core.settings import Settings
from core.types import Item, Recommendations
from engines.explain import Explanation
from models import bundle, files
from models.content import ContentModel
from models.ensemble import Blend
from models.popular import PopularModel
from models.registry import Registry
from tests.api.world import FOR_DEVELOPER, Client, checked, remember, serving, shown, store_items
from tests.engines.world import ITEMS, POPULAR, als, two_tower


def test_an_active_user_is_answered_by_the_ensemble_and_explain_shows_each_part(
    settings: Settings, redis: Redis
) -> None:
    def write(folder: Path) -> None:
        files.write_json(folder / bundle.CATALOGUE, ITEMS)
        for part, model in {"als": als(), "content": ContentModel.fit(ITEMS)}.items():
            model.save(folder / part)
        Blend(weights={"als": 0.6, "content_based": 0.4}).save(folder / "ensemble")

    Registry(settings.models_path).publish(write)
    remember(redis, "hot", "pay", events=25, interests=["fintech"])
    with serving(settings) as api:
        answer = checked(api.get(f"{FOR_DEVELOPER}/hot?limit=2").json(), Recommendations)
        assert (answer.method_used, answer.fallbacks) == ("ensemble", [])
        best = answer.recommendations[0]
        assert {reason.kind for reason in best.reasons} >= {
            "similar_to_your_items",
            "matches_your_interests",
        }
        explanation = checked(
            api.get(f"/api/explain/hot/{best.item_id}?use_case=developer_startup").json(),
            Explanation,
        )
        views = {view.engine: view for view in explanation.engines}
        parts = [views["als"], views["content_based"]]
        assert views["ensemble"].score == pytest.approx(best.score)
        assert sum((part.weight or 0) * (part.normalised or 0) for part in parts) == pytest.approx(
            best.score
        )
        assert "ensemble" not in {gap["part"] for gap in api.get("/health/ready").json()["missing"]}


def test_every_engine_explains_itself_in_the_same_fields(settings: Settings, redis: Redis) -> None:
    def write(folder: Path) -> None:
        files.write_json(folder / bundle.CATALOGUE, ITEMS)
        parts = {
            "als": als(),
            "two_tower": two_tower(),
            "content": ContentModel.fit(ITEMS),
            "popular": PopularModel(POPULAR),
        }
        for part, model in parts.items():
            (folder / part).mkdir()
            model.save(folder / part)

    Registry(settings.models_path).publish(write)
    remember(redis, "hot", "pay", "pill", events=25, interests=["fintech"])
    with serving(settings, enable_two_tower=True) as api:
        explanation = checked(api.get("/api/explain/hot/medpay").json(), Explanation)
    assert [view.engine for view in explanation.engines] == [
        "ensemble",
        "als",
        "two_tower",
        "content_based",
        "popular",
    ]
    assert all(
        view.score is not None and view.rank is not None and view.contributions
        for view in explanation.engines
    )
    assert {
        view.engine: view.weight for view in explanation.engines if view.weight is not None
    } == {
        "als": 0.6,
        "two_tower": 0.4,
    }
    for view in explanation.engines[:4]:
        assert {item for reason in view.contributions for item in reason.items} == {
            "pay",
            "pill",
        }, view.engine
        if view.engine != "als":
            assert "fintech" in {
                word for reason in view.contributions for word in reason.attributes
            }, view.engine


def test_diversity_and_exploration_are_options_of_a_personal_read(
    api: Client, redis: Redis
) -> None:
    plain, diverse = (
        api.get(f"{FOR_DEVELOPER}/warm?limit=4&diversity={share}&include_seen=true")
        for share in (0, 1)
    )
    assert shown(plain) != shown(diverse)
    assert shown(plain)[0] == shown(diverse)[0]
    store_items(
        redis,
        *ITEMS,
        Item(item_id="fresh", item_type="startup", title="Fresh", created_at=time.time()),
    )
    api.app.state.service.view.refresh()
    lines = checked(
        api.get(f"{FOR_DEVELOPER}/warm?limit=4&explore=0.25").json(), Recommendations
    ).recommendations
    assert [(line.item_id, line.method, line.propensity) for line in lines[3:]] == [
        ("fresh", "exploration", 1.0)
    ]
    assert lines[3].reasons[0].kind == "new"
    assert lines[3].metadata["title"] == "Fresh"
    assert "propensity" not in api.get(f"{FOR_DEVELOPER}/warm?limit=4").json()["recommendations"][0]


@pytest.mark.parametrize("name", ["diversity", "explore"])
@pytest.mark.parametrize("value", ["", "-0.1", "1.1", "nan", "much", "inf"])
def test_a_share_outside_of_0_to_1_is_a_422_that_names_the_parameter(
    api: Client, name: str, value: str
) -> None:
    answer = api.get(f"{FOR_DEVELOPER}/warm?{name}={value}")
    assert (answer.status_code, answer.json()["error"]) == (422, "invalid_parameter")
    assert name in answer.json()["detail"]
    assert api.get(f"/api/popular?{name}=0.5").status_code == 422
