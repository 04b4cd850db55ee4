"""A killed fit resumes from its checkpoint, and ignores a checkpoint of another fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.settings import Settings
from models.two_tower import TwoTowerModel
from tests.training.two_tower.world import (
    ONE_THREAD,
    SEED,
    SMALL,
    fit,
    items,
    ring,
    training_data,
)
from training.data import dataset_files
from training.two_tower import fit as two_tower
from training.two_tower.command import fit_two_tower
from training.two_tower.fit_types import FitOptions, Progress
from training.two_tower.hyperparameters import Hyperparameters
from training.two_tower.objective import Objective

ONE_EPOCH = Hyperparameters(dimension=4, layers=1, heads=1, history=4, epochs=1)


def recording(folder: Path, epochs: list[int]) -> FitOptions:
    """Options with checkpoints in `folder` that append every epoch to `epochs`."""
    return replace(
        ONE_THREAD,
        checkpoints=folder,
        on_epoch=lambda progress: epochs.append(progress.epoch),
    )


def test_a_killed_fit_resumes_and_ends_with_the_result_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    hyperparameters = msgspec.structs.replace(SMALL, epochs=4, dropout=0.2)
    undisturbed = fit(ring(), items(), hyperparameters)

    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.epoch == 2:
            raise Killed

    killed = replace(ONE_THREAD, checkpoints=tmp_path, on_epoch=kill)
    with pytest.raises(Killed):
        fit(ring(), items(), hyperparameters, killed)
    epochs: list[int] = []
    resumed = fit(ring(), items(), hyperparameters, recording(tmp_path, epochs))
    assert epochs == [3, 4]
    assert [row["epoch"] for row in resumed.curve] == [1, 2, 3, 4]
    assert resumed.curve == undisturbed.curve, "the report also shows the epochs before the kill"
    np.testing.assert_array_equal(resumed.model.item_vectors, undisturbed.model.item_vectors)
    for name, array in undisturbed.model.arrays.items():
        np.testing.assert_array_equal(resumed.model.arrays[name], array)


def test_a_fit_whose_model_was_not_written_is_not_repeated(
    tmp_path: Path, offline: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, output = tmp_path / "dataset", tmp_path / "model"
    dataset_files.save(ring(24), dataset)
    settings = offline.model_copy(update={"two_tower_epochs": 1, "two_tower_dimension": 4})

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(TwoTowerModel, "save", fail)
        with pytest.raises(OSError, match="no space"):
            fit_two_tower(settings, dataset, None, None, output, 1)
    monkeypatch.setattr(Objective, "loss", fail)
    fit_two_tower(settings, dataset, None, None, output, 1)
    assert len(TwoTowerModel.load(output).item_ids) == 24
    assert not list(output.glob("*checkpoint*")), "it is deleted once the model is written"


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_damaged_checkpoint_is_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "two_tower_checkpoint.npz").write_bytes(content)
    epochs: list[int] = []
    fit(ring(), hyperparameters=ONE_EPOCH, options=recording(tmp_path, epochs))
    assert epochs == [1]


def test_a_checkpoint_of_other_events_is_ignored(tmp_path: Path) -> None:
    epochs: list[int] = []
    for users in (96, 50):
        fit(ring(users), hyperparameters=ONE_EPOCH, options=recording(tmp_path, epochs))
    assert epochs == [1, 1]


def test_a_checkpoint_of_another_catalogue_or_of_ordered_events_is_ignored(tmp_path: Path) -> None:
    hyperparameters = msgspec.structs.replace(SMALL, epochs=1)
    epochs: list[int] = []
    for entries, ordered in (([], True), (items(), True), (items(), False)):
        data = training_data(ring(24), entries, ordered)
        two_tower.fit(data, hyperparameters, SEED, recording(tmp_path, epochs))
    assert epochs == [1, 1, 1], "each fit starts at its first epoch"
