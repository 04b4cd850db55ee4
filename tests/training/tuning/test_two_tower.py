"""The search for hyperparameters of Two-Tower prunes, ends in time, and resumes after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import DatasetError
from core.settings import Settings
from core.types import Item
from tests.training.two_tower.world import items, ring, table
from training.data.dataset import Dataset
from training.tuning import two_tower as tune_two_tower
from training.tuning.options import Scope, TuneOptions
from training.two_tower import fit as two_tower
from training.two_tower.fit_types import FitOptions, Progress, TrainingData
from training.two_tower.hyperparameters import Hyperparameters, hyperparameters

EPOCHS = 6


@pytest.fixture
def small() -> Settings:
    return Settings(
        two_tower_dimension=8,
        two_tower_history=6,
        two_tower_epochs=EPOCHS,
        two_tower_patience=EPOCHS,
    )


@pytest.fixture(scope="module")
def data() -> Dataset:
    return ring(users=48)


def search(
    data: Dataset,
    settings: Settings,
    folder: Path,
    trials: int | None,
    minutes: float = 60.0,
    entries: Sequence[Item] = (),
) -> dict[str, Any]:
    options = TuneOptions(
        folder / "study.sqlite", folder / "hyperparameters.json", minutes, trials, threads=1
    )
    return tune_two_tower.search(data, entries, settings, options)


Curve = Callable[[Hyperparameters], list[float]]


def fake_fits(monkeypatch: pytest.MonkeyPatch, curve: Curve) -> list[tuple[Hyperparameters, int]]:
    """Replaces the fit by one whose NDCG by epoch is `curve(hyperparameters)`.

    Returns, for each fit, its hyperparameters and the number of its epochs.
    """
    fits: list[tuple[Hyperparameters, int]] = []

    def fit(
        data: TrainingData, hyperparameters: Hyperparameters, seed: int, options: FitOptions
    ) -> Any:
        fits.append((hyperparameters, 0))
        values = curve(hyperparameters)
        assert options.on_epoch is not None
        for epoch, value in enumerate(values, 1):
            fits[-1] = hyperparameters, epoch
            options.on_epoch(Progress(epoch, 1.0, value, max(values[:epoch]), 0.0))
        return SimpleNamespace(facts={"validation_ndcg@10": max(values)})

    monkeypatch.setattr(two_tower, "fit", fit)
    return fits


def test_the_search_reports_the_best_trial_and_tries_the_configured_hyperparameters(
    data: Dataset, small: Settings, tmp_path: Path
) -> None:
    result = search(data, small, tmp_path, trials=3, entries=items())
    tuned = result["tuned"]
    assert tuned["trials"] == len(tuned["best"]) == 3
    assert set(result["two_tower"]) == set(Hyperparameters.__struct_fields__)
    values = [row["value"] for row in tuned["best"]]
    assert values == sorted(values, reverse=True)
    assert tuned["value"] == values[0] >= tuned["configured"]
    assert hyperparameters(small) in [
        Hyperparameters(**{name: row[name] for name in Hyperparameters.__struct_fields__})
        for row in tuned["best"]
    ]


def test_the_search_finds_the_best_dropout(
    data: Dataset, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_fits(monkeypatch, lambda point: [0.5 - abs(point.dropout - 0.45)] * EPOCHS)
    result = search(data, small, tmp_path, trials=24)
    assert abs(result["two_tower"]["dropout"] - 0.45) < 0.1
    assert result["two_tower"]["heads"] == small.two_tower_heads, (
        "what makes reads slower stays as configured"
    )


def test_a_trial_below_the_median_is_pruned(
    data: Dataset, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = iter([0.5, 0.4, 0.1, 0.48])
    fits = fake_fits(
        monkeypatch,
        lambda _: [(level := next(levels)), *(level + 0.01 * epoch for epoch in range(1, EPOCHS))],
    )
    result = search(data, small, tmp_path, trials=4)
    assert [epochs for _, epochs in fits] == [EPOCHS, EPOCHS, tune_two_tower.PRUNE_FROM, EPOCHS]
    assert result["tuned"]["finished"] == 3
    assert result["tuned"]["value"] == pytest.approx(0.55)
    assert sorted(row["ended"] for row in result["tuned"]["best"]) == [
        "given up",
        "yes",
        "yes",
        "yes",
    ]


def test_a_second_run_continues_the_search(
    data: Dataset, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = fake_fits(monkeypatch, lambda point: [point.learning_rate] * EPOCHS)
    assert search(data, small, tmp_path, trials=2)["tuned"]["trials"] == 2
    again = search(data, small, tmp_path, trials=3)
    assert again["tuned"]["trials"] == 5
    assert again["tuned"]["configured"] == small.two_tower_learning_rate
    assert len({point.learning_rate for point, _ in fits}) == 5, "no point is tried twice"
    stepped = small.model_copy(update={"two_tower_learning_rate": 0.007})
    assert search(data, stepped, tmp_path, trials=1)["tuned"]["configured"] == 0.007, (
        "the newly configured point is tried, too"
    )
    other = small.model_copy(update={"two_tower_epochs": 2})
    assert search(data, other, tmp_path, trials=1)["tuned"]["trials"] == 1, (
        "fits with other fixed hyperparameters are another search"
    )


@pytest.mark.parametrize("killed_at", [2, EPOCHS])
def test_a_killed_search_resumes_its_fit(
    data: Dataset, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    fit = two_tower.fit
    epochs: list[tuple[Hyperparameters, int]] = []

    def fit_until_killed(
        data: TrainingData, point: Hyperparameters, seed: int, options: FitOptions
    ) -> Any:
        def on_epoch(progress: Progress) -> None:
            epochs.append((point, progress.epoch))
            if len(epochs) == killed_at:
                raise KeyboardInterrupt
            assert options.on_epoch is not None
            options.on_epoch(progress)

        return fit(data, point, seed, replace(options, on_epoch=on_epoch))

    monkeypatch.setattr(two_tower, "fit", fit_until_killed)
    with pytest.raises(KeyboardInterrupt):
        search(data, small, tmp_path, trials=1)
    result = search(data, small, tmp_path, trials=1)
    assert epochs == [(hyperparameters(small), epoch) for epoch in range(1, EPOCHS + 1)], (
        "no epoch is trained twice"
    )
    assert result["tuned"]["configured"] == result["tuned"]["value"]
    assert not list(tmp_path.glob("**/*checkpoint*")), "a finished fit deletes its checkpoint"


def test_a_fit_that_runs_out_of_time_is_resumed_by_the_next_run(
    data: Dataset, small: Settings, tmp_path: Path
) -> None:
    cut = search(data, small, tmp_path, trials=None, minutes=0.00001)
    assert cut["tuned"]["finished"] == 0
    assert cut["tuned"]["best"][0]["ended"] == "not yet"
    assert cut["two_tower"] == {
        name: getattr(hyperparameters(small), name) for name in cut["two_tower"]
    }
    resumed = search(data, small, tmp_path, trials=1)
    assert resumed["tuned"]["finished"] == 1
    assert resumed["two_tower"] == cut["two_tower"], "the second run resumes the same fit"
    assert resumed["tuned"]["configured"] == resumed["tuned"]["value"]


def test_users_with_one_item_each_raise_an_error(small: Settings, tmp_path: Path) -> None:
    single_items = table([(f"u{user}", f"i{user % 4}", "like", 1e9) for user in range(8)])
    with pytest.raises(DatasetError, match="no user has two items"):
        search(single_items, small, tmp_path, trials=1)


def test_within_a_retrain_a_search_gives_up_when_its_time_is_too_short_for_two_fits(
    data: Dataset, small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[float] = []

    def fit(_data: object, _point: object, _seed: int, options: FitOptions) -> Any:
        assert options.on_batch is not None
        for batch in range(100):
            batches.append(batch / 10)
            options.on_batch(batch / 10)
            clock[0] += 1.0

    clock = [0.0]
    monkeypatch.setattr(two_tower, "fit", fit)
    monkeypatch.setattr(tune_two_tower.time, "monotonic", lambda: clock[0])
    options = TuneOptions(None, Path("unused"), minutes=1.5, threads=1)
    with pytest.raises(tune_two_tower.TooSlow, match="one fit takes about 60 s"):
        tune_two_tower.search(data, (), small, options, Scope(overtime=False))
    assert batches[-1] == tune_two_tower.MEASURED_EPOCHS, "it learns that early in the first fit"
