"""A retrain tunes by itself, within its time, and only when it may pay."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from redis import Redis
from rich.console import Console

from core.errors import Interrupted
from core.settings import Settings
from models.registry import Registry
from store.state import keys, retrains
from tests.training import world
from tests.training.job.run import published
from training import als
from training.job import run as progress
from training.job.retrain import Options, retrain
from training.job.tuning import CANDIDATES
from training.tuning import als_trial
from training.tuning import record as tuning_record
from training.tuning.record import Decision, Record, Searches
from training.two_tower import hyperparameters as two_tower

SET_BY_HAND = ("als_factors", "als_regularization", "als_alpha")
TRIALS = 6
ALS = als.Hyperparameters()


@pytest.fixture
def untuned(trainer: Settings) -> Settings:
    """A shop on first contact: no hyperparameter is set, a search ends after TRIALS trials."""
    unset = {name: getattr(trainer, name) for name in trainer.model_fields_set - {*SET_BY_HAND}}
    return Settings(**{**unset, "tune_seconds": 60.0, "tune_trials": TRIALS})


def tuned(settings: Settings, **options: Any) -> str:
    """The version of a retrain; one thread, since more only wait for each other on little data."""
    return published(settings, threads=1, **options)


def record(settings: Settings, version: str) -> Record:
    path = settings.models_path / version / tuning_record.FILE
    return msgspec.json.decode(path.read_bytes(), type=Record)


def settings_of(settings: Settings, version: str) -> dict[str, Any]:
    return Registry(settings.models_path).manifest(version).settings


def test_the_first_retrain_tunes_als_and_keeps_the_search_in_the_bundle(
    untuned: Settings, redis: Redis
) -> None:
    version = tuned(untuned)
    tuning = record(untuned, version)
    search = tuning.tuned.als
    assert search is not None
    assert tuning.tuned.retrain.decision == "searched"
    assert tuning.tuned.retrain.reason == "the live bundle has no search"
    events = 960 * (1 - untuned.holdout_fraction)
    assert tuning.tuned.retrain.events == events, "the search sees no event after the cut"
    assert search["objective"] == "NDCG@10"
    assert len(search["tried"]) == search["trials"] == TRIALS
    first = [searched(msgspec.to_builtins(one)) for one in (ALS, *als_trial.USUAL_CHOICES)]
    assert [searched(row) for row in search["tried"][:3]] == first, "the settings, then usual ones"
    gain, low, high = search["gain"]
    assert low <= gain <= high
    assert gain > 0
    assert tuning.als != ALS
    manifest = settings_of(untuned, version)
    assert manifest["als"] == msgspec.to_builtins(tuning.als), "the models are fitted with it"
    assert manifest["tuning"]["als"]["gain"] == [gain, low, high], "`models show` prints it"
    assert manifest["hyperparameters_from"] == tuning_record.FILE
    page = (untuned.models_path / version / "evaluation" / "report.html").read_text("utf-8")
    assert f"6 trials in {search['seconds']:.0f} s; the best gains {gain:+.4f} NDCG@10" in page
    model = Registry(untuned.models_path).load_part(version, "als")
    assert tuning.als is not None
    assert model.factors == tuning.als.factors


def test_searches_of_the_same_events_and_seed_are_alike(untuned: Settings, redis: Redis) -> None:
    def tried(settings: Settings) -> list[dict[str, Any]]:
        search = record(settings, tuned(settings)).tuned.als
        assert search is not None
        return search["tried"]

    other = untuned.model_copy(update={"models_path": untuned.models_path / "other"})
    assert tried(untuned) == tried(other)


def test_a_hyperparameter_that_is_set_by_hand_is_not_searched(
    untuned: Settings, redis: Redis
) -> None:
    by_hand = untuned.model_copy(update={"als_factors": 6, "als_iterations": 3})
    tuning = record(by_hand, tuned(by_hand))
    assert tuning.als is not None
    assert (tuning.als.factors, tuning.als.iterations) == (6, 3)
    assert tuning.tuned.als is not None
    assert {row["factors"] for row in tuning.tuned.als["tried"]} == {6}
    assert len({row["alpha"] for row in tuning.tuned.als["tried"]}) == TRIALS


def test_a_further_search_begins_with_the_live_choice_and_the_best_trials_of_the_last_one(
    untuned: Settings, redis: Redis
) -> None:
    last = record(untuned, tuned(untuned))
    longer = untuned.model_copy(update={"tune_seconds": 61.0})
    further = record(longer, tuned(longer, force=True)).tuned
    assert further.retrain.reason == "TUNE_SECONDS was 60 at the last search"
    assert last.als is not None
    assert last.tuned.als is not None
    assert further.als is not None
    best = sorted(last.tuned.als["tried"], key=lambda row: -row["value"])[:CANDIDATES]
    expected = [searched(msgspec.to_builtins(last.als))]
    expected += [searched(row) for row in best if searched(row) not in expected]
    assert [searched(row) for row in further.als["tried"]][: len(expected)] == expected


def searched(row: dict[str, Any]) -> dict[str, Any]:
    """The search dimensions of a trial."""
    return {name: row[name] for name in als_trial.RANGES}


def test_no_time_means_no_search_and_the_choice_of_the_live_bundle_stays(
    untuned: Settings, redis: Redis
) -> None:
    never = untuned.model_copy(update={"tune_seconds": 0})
    first = tuned(never)
    assert settings_of(never, first)["als"] == msgspec.to_builtins(ALS)
    assert not (never.models_path / first / tuning_record.FILE).exists()
    searched = tuned(untuned)
    again = tuned(never)
    assert settings_of(never, again)["als"] == settings_of(never, searched)["als"]
    assert record(never, again).tuned.retrain.decision == "reused"
    by_hand = never.model_copy(update={"als_alpha": 7.0})
    version = tuned(by_hand, force=True)
    assert settings_of(by_hand, version)["als"] == {
        **settings_of(never, searched)["als"],
        "alpha": 7.0,
    }


def test_a_file_of_hyperparameters_takes_the_place_of_a_search(
    untuned: Settings, redis: Redis
) -> None:
    version = tuned(untuned)
    path = untuned.models_path / version / tuning_record.FILE
    again = tuned(untuned, hyperparameters=path)
    assert settings_of(untuned, again)["als"] == settings_of(untuned, version)["als"]
    assert settings_of(untuned, again)["hyperparameters_from"] == str(path)
    assert two_tower.hyperparameters(untuned, path) == record(untuned, version).two_tower


def test_two_tower_is_searched_in_the_rest_of_the_time(untuned: Settings, redis: Redis) -> None:
    both = untuned.model_copy(
        update={
            "enable_two_tower": True,
            "two_tower_epochs": 2,
            "two_tower_history": 10,
            "two_tower_dimension": 8,
            "tune_seconds": 600.0,
            "tune_trials": 3,
        }
    )
    version = tuned(both)
    tuning = record(both, version)
    search = tuning.tuned.two_tower
    assert search is not None
    assert search["trials"] == 3
    assert {row["dimension"] for row in search["tried"]} == {8}, "it is set by hand"
    assert len({row["learning_rate"] for row in search["tried"]}) == 3
    assert search["gain"] is not None
    assert tuning.two_tower is not None
    fitted = settings_of(both, version)["two_tower"]
    assert (
        fitted["learning_rate"]
        == tuning.two_tower.learning_rate
        == search["chosen"]["learning_rate"]
    )
    assert tuning.tuned.als is not None, "and ALS before it"


def test_a_search_reports_its_progress_and_a_stopped_retrain_ends_it(
    untuned: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
    endless = untuned.model_copy(update={"tune_seconds": 3600.0, "tune_trials": 0})

    def stopped() -> bool:
        return "als: trial" in retrains.last(redis).get("progress", "")

    with pytest.raises(Interrupted, match="in step tune"):
        retrain(endless, Options(threads=1), Console(file=io.StringIO()), stopped=stopped)
    assert retrains.last(redis)["status"] == "interrupted"
    assert redis.get(keys.ONLY.lease(retrains.LEASE)) is None
    assert Registry(untuned.models_path).versions() == []


def test_data_that_nothing_can_be_searched_by_is_fitted_with_the_settings(
    untuned: Settings, redis: Redis
) -> None:
    single = untuned.model_copy(update={"archive_url": untuned.archive_url + "-single"})
    world.archived(single, [world.row(user, f"u{user}", f"i{user % 4}") for user in range(40)])
    version = tuned(single)
    tuning = record(single, version)
    assert tuning.tuned.retrain.decision == "skipped"
    assert "no user has two items" in tuning.tuned.retrain.reason
    assert settings_of(single, version)["als"] == msgspec.to_builtins(ALS)


def of_search(gain: list[float] | None, **decision: Any) -> Record:
    last = {"events": 1000, "fixed": ["als_factors"], "budget_s": 60.0, **decision}
    searched = Decision(decision="searched", reason="", **last)
    return Record(als=ALS, tuned=Searches(retrain=searched, als={"gain": gain}))


@pytest.mark.parametrize(
    ("former", "events", "expected"),
    [
        (None, 1000, "the live bundle has no search"),
        (of_search([0.02, 0.01, 0.03]), 1000, "the last search gained more than its error"),
        (of_search([0.02, -0.01, 0.05]), 1000, ""),
        (of_search(None), 1000, ""),
        (of_search([0.0, 0.0, 0.0]), 1499, ""),
        (of_search([0.0, 0.0, 0.0]), 1500, "1,500 events, 1,000 at the last search"),
        (of_search([0.0, 0.0, 0.0]), 600, "600 events, 1,000 at the last search"),
        (of_search(None, budget_s=20.0), 1000, "TUNE_SECONDS was 20 at the last search"),
        (of_search(None, fixed=[]), 1000, "other hyperparameters are set by hand"),
    ],
)
def test_a_further_search_runs_only_when_it_may_pay(
    former: Record | None, events: int, expected: str
) -> None:
    reason = tuning_record.why_search(former, events, ["als_factors"], 60.0)
    assert reason.startswith(expected)
    assert bool(reason) == bool(expected)
