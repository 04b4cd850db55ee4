"""The search for hyperparameters of ALS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.settings import Settings
from training import als
from training.als import Hyperparameters
from training.data import dataset_files, validation
from training.tuning import als as tune_als
from training.tuning import als_trial
from training.tuning.options import Scope, TuneOptions


def test_a_killed_search_resumes_and_tries_the_configured_hyperparameters_first(
    small: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, fit = dataset_files.load(folder / "dataset"), als.fit
    points: list[Hyperparameters] = []

    def fit_or_exit(
        interactions: Any, hyperparameters: Hyperparameters, *more: Any, **named: Any
    ) -> Any:
        points.append(hyperparameters)
        if len(points) == 2:
            raise SystemExit  # Optuna does not learn of it, as with a kill
        return fit(interactions, hyperparameters, *more, **named)

    def search(settings: Settings, trials: int) -> dict[str, Any]:
        options = TuneOptions(
            folder / "als.sqlite", folder / "out.json", minutes=60.0, trials=trials, threads=1
        )
        return tune_als.search(data, settings, options)["tuned"]

    monkeypatch.setattr(als, "fit", fit_or_exit)
    with pytest.raises(SystemExit):
        search(small, 3)
    tuned = search(small, tune_als.SOBOL_TRIALS)
    assert (points[0].factors, points[0].regularization, points[0].alpha) == (16, 5.0, 2.0)
    assert tuned["configured"]["factors"] == 16
    assert points[1] in points[2:], "the point of the killed trial is tried again"
    assert tuned["trials"] == tune_als.SOBOL_TRIALS + 2, "the killed trial counts as failed"
    changed = search(small.model_copy(update={"als_alpha": 3.0}), 1)
    assert points[-1].alpha == pytest.approx(3.0), "the newly configured point is tried, too"
    assert changed["configured"]["alpha"] == pytest.approx(3.0)
    assert changed["ranges"]["factors"] == (16, 256)


def test_configured_factors_beyond_the_range_widen_it(small: Settings, folder: Path) -> None:
    data = dataset_files.load(folder / "dataset")
    wide = small.model_copy(update={"als_factors": 300, "als_iterations": 2})
    options = TuneOptions(
        folder / "wide.sqlite", folder / "out.json", minutes=0.05, trials=1, threads=1
    )
    sections = tune_als.search(data, wide, options)
    assert sections["tuned"]["ranges"]["factors"] == (16, 300)
    assert sections["als"]["factors"] == 300, "the configured point is tried first"


def test_on_much_data_a_fit_that_takes_too_long_counts_by_its_best_sweep(
    small: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune_als, "START_SHARE", 0.0)
    monkeypatch.setattr(tune_als, "TRIAL_SHARE", 0.0)
    scores, gains = [], validation.gains

    def count_scores(*arguments: Any) -> Any:
        scores.append(1)
        return gains(*arguments)

    monkeypatch.setattr(validation, "gains", count_scores)
    data = dataset_files.load(folder / "dataset")
    options = TuneOptions(None, folder / "out.json", minutes=60.0, trials=3, threads=1)
    search = tune_als.Search(data, small, options, Scope(overtime=False))
    search.run(3600.0)
    sections = search.sections()
    assert sections is not None
    assert sections["tuned"]["finished"] == len(scores) == 3
    assert sections["tuned"]["gain"] is not None, "it is compared with the first trial all the same"
    sweeps = {trial["iterations"] for trial in search.trials()}
    assert sweeps == {als_trial.MAX_SWEEPS}, "a fit that still improved is fitted to its end"


def test_a_search_ends_after_so_many_trials_without_a_better_one(
    small: Settings, folder: Path
) -> None:
    data = dataset_files.load(folder / "dataset")
    options = TuneOptions(None, folder / "out.json", minutes=60.0, trials=60, threads=1)
    search = tune_als.Search(data, small, options, Scope(patience=3))
    search.run(3600.0)
    values = [trial["value"] if trial["ended"] == "complete" else 0.0 for trial in search.trials()]
    assert len(values) < 60
    first = 1 + als_trial.SOBOL_TRIALS
    assert len(values) == 3 + max(values.index(max(values)) + 1, first)
    search.run(3600.0)
    assert len(search.trials()) == len(values), "with more time it tries no more"
