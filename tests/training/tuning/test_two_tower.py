"""A search for Two-Tower's hyperparameters gives up what lags behind, ends with its time, and goes
on where it was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.errors import DatasetError
from core.settings import Settings
from core.types import Item
from tests.training.two_tower.test_fit import items, ring, table
from training.data.dataset import Dataset
from training.tuning import two_tower as tune_two_tower
from training.tuning.study import TuneOptions
from training.two_tower import fit as two_tower
from training.two_tower.fit import Hyperparameters, Progress

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
        folder / "study.sqlite", folder / "found.json", minutes, trials, threads=1
    )
    return tune_two_tower.search(data, entries, settings, options)


Curve = Callable[[Hyperparameters], list[float]]


def by_curve(monkeypatch: pytest.MonkeyPatch, curve: Curve) -> list[tuple[Hyperparameters, int]]:
    """Fits that come out as `curve` says; what each was told, and how many epochs it came to."""
    seen: list[tuple[Hyperparameters, int]] = []

    def fit(*given: Any, on_epoch: Callable[[Progress], None], **more: Any) -> Any:
        chosen = given[3]
        seen.append((chosen, 0))
        values = curve(chosen)
        for epoch, value in enumerate(values, 1):
            seen[-1] = chosen, epoch
            on_epoch(Progress(epoch, 1.0, value, max(values[:epoch]), 0.0))
        return SimpleNamespace(facts={"validation_ndcg@10": max(values)})

    monkeypatch.setattr(two_tower, "fit", fit)
    return seen


def test_the_configured_ones_come_first_and_the_best_wins(
    data: Dataset, small: Settings, tmp_path: Path
) -> None:
    found = search(data, small, tmp_path, trials=3, entries=items())
    tuned = found["tuned"]
    assert tuned["trials"] == len(tuned["best"]) == 3
    assert set(found["two_tower"]) == set(Hyperparameters.__struct_fields__)
    values = [row["value"] for row in tuned["best"]]
    assert values == sorted(values, reverse=True)
    assert tuned["value"] == values[0] >= tuned["configured"]
    assert two_tower.hyperparameters(small) in [
        Hyperparameters(**{name: row[name] for name in Hyperparameters.__struct_fields__})
        for row in tuned["best"]
    ]


def test_it_finds_the_dropout_that_is_best(
    data: Dataset, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_curve(monkeypatch, lambda chosen: [0.5 - abs(chosen.dropout - 0.45)] * EPOCHS)
    found = search(data, small, tmp_path, trials=24)
    assert abs(found["two_tower"]["dropout"] - 0.45) < 0.1
    assert found["two_tower"]["heads"] == small.two_tower_heads, (
        "what costs a reader time is left as it is"
    )


def test_a_fit_below_the_median_is_given_up(
    data: Dataset, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = iter([0.5, 0.4, 0.1, 0.48])
    rising = by_curve(
        monkeypatch,
        lambda _: [(level := next(worse)), *(level + 0.01 * epoch for epoch in range(1, EPOCHS))],
    )
    found = search(data, small, tmp_path, trials=4)
    assert [epochs for _, epochs in rising] == [EPOCHS, EPOCHS, tune_two_tower.PRUNE_FROM, EPOCHS]
    assert found["tuned"]["finished"] == 3
    assert found["tuned"]["value"] == pytest.approx(0.55)
    assert sorted(row["ended"] for row in found["tuned"]["best"]) == [
        "given up",
        "yes",
        "yes",
        "yes",
    ]


def test_a_second_run_goes_on(
    data: Dataset, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = by_curve(monkeypatch, lambda chosen: [chosen.learning_rate] * EPOCHS)
    assert search(data, small, tmp_path, trials=2)["tuned"]["trials"] == 2
    again = search(data, small, tmp_path, trials=3)
    assert again["tuned"]["trials"] == 5
    assert again["tuned"]["configured"] == small.two_tower_learning_rate
    assert len({chosen.learning_rate for chosen, _ in seen}) == 5, "nothing was tried twice"
    stepped = small.model_copy(update={"two_tower_learning_rate": 0.007})
    assert search(data, stepped, tmp_path, trials=1)["tuned"]["configured"] == 0.007, (
        "what is configured now is tried, too"
    )
    other = small.model_copy(update={"two_tower_epochs": 2})
    assert search(data, other, tmp_path, trials=1)["tuned"]["trials"] == 1, (
        "other fits are another search"
    )


@pytest.mark.parametrize("killed_at", [2, EPOCHS])
def test_a_killed_search_goes_on_within_its_fit(
    data: Dataset, small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    fit = two_tower.fit
    epochs: list[tuple[Hyperparameters, int]] = []

    def dying(*given: Any, on_epoch: Callable[[Progress], None], **more: Any) -> Any:
        def told(now: Progress) -> None:
            epochs.append((given[3], now.epoch))
            if len(epochs) == killed_at:
                raise KeyboardInterrupt
            on_epoch(now)

        return fit(*given, on_epoch=told, **more)

    monkeypatch.setattr(two_tower, "fit", dying)
    with pytest.raises(KeyboardInterrupt):
        search(data, small, tmp_path, trials=1)
    found = search(data, small, tmp_path, trials=1)
    assert epochs == [
        (two_tower.hyperparameters(small), epoch) for epoch in range(1, EPOCHS + 1)
    ], "no epoch was trained twice"
    assert found["tuned"]["configured"] == found["tuned"]["value"]
    assert not list(tmp_path.glob("**/*checkpoint*")), "a fit that came to its end leaves nothing"


def test_the_time_ends_a_fit_in_the_middle_and_the_next_run_takes_it_up(
    data: Dataset, small: Settings, tmp_path: Path
) -> None:
    cut = search(data, small, tmp_path, trials=None, minutes=0.00001)
    assert cut["tuned"]["finished"] == 0
    assert cut["tuned"]["best"][0]["ended"] == "not yet"
    assert cut["two_tower"] == {
        name: getattr(two_tower.hyperparameters(small), name) for name in cut["two_tower"]
    }
    whole = search(data, small, tmp_path, trials=1)
    assert whole["tuned"]["finished"] == 1
    assert whole["two_tower"] == cut["two_tower"], "it was the same fit"
    assert whole["tuned"]["configured"] == whole["tuned"]["value"]


def test_users_with_one_item_cannot_judge(small: Settings, tmp_path: Path) -> None:
    alone = table([(f"u{user}", f"i{user % 4}", "like", 1e9) for user in range(8)])
    with pytest.raises(DatasetError, match="no user has two items"):
        search(alone, small, tmp_path, trials=1)
