"""The ensemble: weighted sums, missing and failing parts, reasons and explanations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import structlog

from core.errors import ConfigurationError, ModelCorrupt
from core.settings import Settings, load
from core.types import Filters, Item, Request, UserState
from engines.als import ALSEngine
from engines.base import NO_OPINION, Engine, Scoring
from engines.blending.ensemble import EnsembleEngine
from engines.builder import build, with_catalogue, with_popularity
from engines.catalogue import Catalogue
from engines.content.engine import ContentEngine
from engines.explain import explain
from engines.recommender import Recommender
from models import files
from models.bundle import CATALOGUE, Bundle
from models.content import ContentModel
from models.ensemble import Blend
from models.registry import Registry
from tests.engines import world

BLEND = Blend(weights={"als": 0.6, "content_based": 0.4})
HOT = world.user("pay", interests=["fintech"], events=20)
ALL = Request(limit=100)


def blended(blend: Blend = BLEND, **settings: object) -> Recommender:
    return build(world.bundle(ensemble=blend), settings=Settings(_env_file=None, **settings))  # type: ignore[call-arg, arg-type]


def test_hot_users_get_the_weighted_sum_of_scaled_scores() -> None:
    recommender = blended()
    answer = recommender.recommend(HOT, ALL)
    # it knows nothing of `mute`
    assert (answer.method_used, answer.fallbacks[0].engine) == ("ensemble", "ensemble")
    parts = {name: recommender.engines[name].score(HOT, ALL).scores for name in BLEND.weights}
    alive = recommender.catalogue.alive

    def share(name: str, row: int) -> float:
        known = parts[name][alive & np.isfinite(parts[name])]
        return (
            0.0
            if parts[name][row] == NO_OPINION
            else float((parts[name][row] - known.min()) / (known.max() - known.min()))
        )

    for line in [line for line in answer.recommendations if line.method == "ensemble"]:
        row = recommender.catalogue.rows[line.item_id]
        assert line.score == pytest.approx(
            0.6 * share("als", row) + 0.4 * share("content_based", row), abs=1e-6
        )


def test_the_score_of_an_item_does_not_depend_on_the_filters() -> None:
    """So answers with other filters or limits agree with each other and with `explain`."""
    recommender = blended()
    whole = {line.item_id: line.score for line in recommender.recommend(HOT, ALL).recommendations}
    filtered = recommender.recommend(
        HOT, Request(limit=2, filters=Filters(item_types=("scaleup",)))
    ).recommendations
    assert [line.item_id for line in filtered] == ["medpay"]
    assert filtered[0].score == whole["medpay"]


def test_the_blend_comes_from_the_bundle_unless_a_setting_replaces_it() -> None:
    by_settings = build(
        world.bundle(),
        settings=Settings(_env_file=None, ensemble_two_tower_weight=0, ensemble_fusion="rank"),
    )
    tuned = Blend(weights={"als": 3, "content_based": 0, "popular": 1})
    by_bundle = blended(tuned)
    set_by_hand = blended(tuned, ensemble_two_tower_weight=0)
    engines = [
        recommender.engines["ensemble"] for recommender in (by_settings, by_bundle, set_by_hand)
    ]
    assert [
        (engine.shares, engine.blend.method)
        for engine in engines
        if isinstance(engine, EnsembleEngine)
    ] == [
        ({"als": 1.0}, "rank"),
        ({"als": 0.75, "popular": 0.25}, "min_max"),
        ({"als": 1.0}, "min_max"),
    ]


def test_settings_with_all_weights_zero_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_ALS_WEIGHT", "0")
    monkeypatch.setenv("ENSEMBLE_TWO_TOWER_WEIGHT", "0")
    with pytest.raises(ConfigurationError, match="ENSEMBLE_ALS_WEIGHT"):
        load()


@pytest.mark.parametrize(
    ("bundle", "settings", "cause"),
    [
        (world.bundle(ensemble=BLEND), {"enable_als": False}, "als: disabled by ENABLE_ALS=false"),
        (world.bundle(als=None), {}, "als: the bundle was made without its part 'als'"),
        (
            world.bundle(ensemble=Blend(weights={"als": 1, "crystal_ball": 1})),
            {},
            "crystal_ball: there is no such engine",
        ),
        (
            world.bundle(ensemble=BLEND),
            {"enable_ensemble": False},
            "disabled by ENABLE_ENSEMBLE=false",
        ),
    ],
)
def test_without_one_of_its_parts_the_ensemble_falls_back_with_a_cause(
    bundle: Bundle, settings: dict[str, bool], cause: str
) -> None:
    answer = build(bundle, settings=Settings(_env_file=None, **settings)).recommend(
        HOT, Request(limit=2)
    )  # type: ignore[call-arg, arg-type]
    assert answer.method_used == (
        "als" if bundle.als and settings.get("enable_als", True) else "content_based"
    )
    assert (answer.fallbacks[0].engine, answer.fallbacks[0].cause) == ("ensemble", cause)


def test_when_one_part_cannot_score_the_user_another_engine_answers() -> None:
    """Twenty events with items that are not in the ALS model: content answers by the interests."""
    answer = blended().recommend(
        world.user("never-heard-of", interests=["fintech"], events=20), Request(limit=2)
    )
    assert answer.method_used == "content_based"
    assert answer.fallbacks[0].cause == "als: no item of the user's history is in the ALS model"


class Broken(Engine):
    name = "als"

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def score(self, state: UserState, request: Request) -> Scoring:
        raise ZeroDivisionError("boom")


def test_when_one_part_fails_another_engine_answers_and_the_failure_is_logged() -> None:
    recommender = blended()
    recommender.engines["als"] = Broken(recommender.catalogue)
    recommender.engines["ensemble"] = EnsembleEngine(recommender.engines, BLEND)
    with structlog.testing.capture_logs() as logs:
        answer = recommender.recommend(HOT, Request(limit=2))
    assert answer.method_used == "content_based"
    assert [step.engine for step in answer.fallbacks] == ["ensemble", "als", "two_tower"]
    assert answer.fallbacks[0].cause == "failed with ZeroDivisionError; the log has the traceback"
    assert [entry["engine"] for entry in logs if entry["event"] == "engine_failed"] == [
        "ensemble",
        "als",
    ]


def test_explain_reports_a_failing_part_and_shows_the_others() -> None:
    recommender = blended()
    recommender.engines["als"] = Broken(recommender.catalogue)
    recommender.engines["ensemble"] = EnsembleEngine(recommender.engines, BLEND)
    with structlog.testing.capture_logs():
        views = {view.engine: view for view in explain(recommender, HOT, "bank", ALL).engines}
    broken = "failed with ZeroDivisionError; the log has the traceback"
    assert (views["ensemble"].cause, views["als"].cause, views["als"].weight) == (
        broken,
        broken,
        None,
    )
    assert views["content_based"].score is not None


def test_the_parts_must_share_one_catalogue() -> None:
    use_cases = Settings(_env_file=None).use_cases  # type: ignore[call-arg]
    engines = {
        "als": ALSEngine(world.als(), world.catalogue(), use_cases),  # has a row for `ghost`
        "content_based": ContentEngine(ContentModel.fit(world.ITEMS), world.catalogue(), use_cases),
    }
    with pytest.raises(ValueError, match="one catalogue"):
        EnsembleEngine(engines, BLEND)


def test_reasons_of_all_parts_add_up_to_the_score() -> None:
    best = next(
        line for line in blended().recommend(HOT, ALL).recommendations if line.item_id == "bank"
    )
    assert {reason.kind for reason in best.reasons} == {
        "similar_to_your_items",
        "matches_your_interests",
        "shares_with_your_items",
        "new",
    }
    assert best.reasons[0].kind == "similar_to_your_items", (
        "the part that contributes most comes first"
    )
    assert best.reasons[0].items == ["pay"]
    assert sum(reason.contribution or 0 for reason in best.reasons) == pytest.approx(
        best.score, rel=1e-6
    )


def test_an_item_without_a_score_in_one_part_has_the_reasons_of_the_other() -> None:
    recommender = blended()
    new = Item(item_id="new", item_type="startup", categories=["fintech"], tags=["payments"])
    updated_recommender = with_catalogue(recommender, recommender.catalogue.updated([new]))
    line = next(
        line
        for line in updated_recommender.recommend(HOT, ALL).recommendations
        if line.item_id == "new"
    )
    assert line.method == "ensemble"
    assert "similar_to_your_items" not in {reason.kind for reason in line.reasons}
    assert line.score <= 0.4 + 1e-6


def test_explain_shows_raw_score_normalised_score_and_weight_of_each_part() -> None:
    recommender = blended()
    explanation = explain(recommender, HOT, "medpay", ALL)
    views = {view.engine: view for view in explanation.engines}
    parts = [views["als"], views["content_based"]]
    assert [part.weight for part in parts] == [0.6, 0.4]
    raw = recommender.engines["als"].score(HOT, ALL).scores[recommender.catalogue.rows["medpay"]]
    assert views["als"].score == pytest.approx(float(raw))
    total = sum((part.weight or 0) * (part.normalised or 0) for part in parts)
    assert views["ensemble"].score == pytest.approx(total, rel=1e-6)
    assert views["popular"].weight is None
    contributions = views["ensemble"].contributions
    assert sum(reason.contribution or 0 for reason in contributions) == pytest.approx(
        total, rel=1e-6
    )
    assert "pay" in {item for reason in contributions for item in reason.items}
    assert "fintech" in {word for reason in contributions for word in reason.attributes}
    assert (explanation.method_used, explanation.shown, explanation.rank) == (
        "ensemble",
        True,
        views["ensemble"].rank,
    )


def test_explain_shows_a_normalised_score_of_0_for_a_part_without_a_score() -> None:
    recommender = blended()
    new = Item(item_id="new", item_type="startup", categories=["fintech"])
    views = {
        view.engine: view
        for view in explain(
            with_catalogue(recommender, recommender.catalogue.updated([new])), HOT, "new", ALL
        ).engines
    }
    assert (views["als"].score, views["als"].normalised, views["als"].weight) == (None, 0.0, 0.6)
    assert views["als"].cause is not None


def test_explain_has_no_weights_for_a_user_whom_the_ensemble_cannot_score() -> None:
    views = explain(blended(), world.user(interests=["fintech"]), "bank", ALL).engines
    assert views[0].cause == "als: the user has no history"
    assert all(view.weight is None for view in views)


def test_a_blend_with_popularity_uses_newer_popularity() -> None:
    recommender = blended(Blend(weights={"popular": 1}))
    updated_recommender = with_popularity(recommender, {"unlabelled": [("coin", 1.0)]})
    assert updated_recommender.recommend(HOT, Request(limit=1)).recommendations[0].item_id == "coin"


def test_a_blend_is_loaded_from_the_bundle_and_is_optional(tmp_path: Path) -> None:
    parts = world.bundle(ensemble=BLEND)

    def write(folder: Path, blend: Blend | None = BLEND) -> None:
        files.write_json(folder / CATALOGUE, parts.catalogue)
        for name in ("als", "content", "popular"):
            parts.parts[name].save(folder / name)
        if blend is not None:
            blend.save(folder / "ensemble")

    registry = Registry(tmp_path)
    loaded = registry.load(registry.publish(write))
    assert loaded.ensemble == BLEND
    assert (
        build(loaded, settings=Settings()).recommend(HOT, Request(limit=2)).method_used
        == "ensemble"
    )
    without = registry.load(registry.publish(lambda folder: write(folder, None)))
    assert without.ensemble is None
    assert "ensemble" not in without.missing
    for weights in ({"als": 0.0}, {"als": -1.0, "popular": 2.0}, {}):
        damaged = registry.load(
            registry.publish(lambda folder, weights=weights: write(folder, Blend(weights=weights)))
        )  # type: ignore[misc]
        assert "weights must be finite" in damaged.missing["ensemble"]
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "ensemble.json").write_text('{"weights": {"als": 1}, "fusion": "magic"}')
    with pytest.raises(ModelCorrupt, match="fusion"):
        Blend.load(tmp_path / "odd")
