"""Several processes learn what one learns, whichever of them is killed on the way."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import torch

from core.codec import encode_json
from core.errors import ConfigurationError, ProcessFailed
from core.settings import Settings
from models.two_tower import TwoTowerModel
from testing.ports import free_port
from testing.process import Child, settings_environment
from tests.support import eventually
from tests.training.two_tower.world import SMALL, items, ring, ring_inputs, training_data
from training.__main__ import app
from training.data import dataset_files
from training.two_tower import checkpoint, torchrun
from training.two_tower import fit as two_tower
from training.two_tower.fit_types import FitOptions
from training.two_tower.hyperparameters import Hyperparameters
from training.two_tower.network import Towers
from training.two_tower.objective import Objective
from training.two_tower.processes import Processes

SEED = 7
CPU = torch.device("cpu")
DETERMINISTIC = msgspec.structs.replace(SMALL, id_dropout=0.3, epochs=12, candidates=16)
"""Without dropout, the one thing that each process draws differently."""

OF_OTHER_DATA = """
from training.two_tower import torchrun
with torchrun.joined() as processes:
    processes.check_alike("other data")
"""


class Process(Processes):
    """Process `number` of `count`, without the others."""

    def __init__(self, number: int, count: int) -> None:
        self.number, self.count = number, count


def gradients(process: Processes, windows: int) -> dict[str, torch.Tensor]:
    """The gradient of a first step on `windows` windows."""
    sequences, content, facts = ring_inputs()
    torch.manual_seed(SEED)
    towers = Towers(facts, content.features, DETERMINISTIC.dropout)
    share = np.bincount(sequences.item, minlength=facts.items) / len(sequences.item)
    objective = Objective(facts, content, share, DETERMINISTIC, CPU, process)
    objective.seed(SEED)
    rng = np.random.default_rng(SEED)
    batch = sequences.batch(sequences.windows(4, rng)[:windows])
    objective.loss(towers, batch, rng).backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in towers.named_parameters()}  # type: ignore[misc]


@pytest.mark.parametrize(("windows", "count"), [(40, 2), (41, 3), (2, 3)])
def test_the_mean_gradient_of_the_processes_is_that_of_one(windows: int, count: int) -> None:
    """Also with fewer windows than processes, sampled candidates and hidden ids."""
    parts = [gradients(Process(number, count), windows) for number in range(count)]
    for name, expected in gradients(Process(0, 1), windows).items():
        mean = torch.stack([part[name] for part in parts]).mean(0)
        torch.testing.assert_close(mean, expected, atol=1e-6, rtol=1e-4)


def environment(settings: Settings, values: Hyperparameters) -> dict[str, str]:
    fields = msgspec.to_builtins(values)
    named = {f"TWO_TOWER_{name.upper()}": str(value) for name, value in fields.items()}
    return {**settings_environment(settings), **named, "LOG_FORMAT": "json", "OMP_NUM_THREADS": "1"}


def process_of(torchrun: Child, number: int) -> psutil.Process | None:
    """The process `number` that `torchrun` started."""
    for process in psutil.Process(torchrun.pid).children(recursive=True):
        if process.environ().get("RANK") == str(number):
            return process
    return None


@pytest.mark.timeout(600)  # five processes import torch, each on half a core
def test_two_processes_of_torchrun_learn_what_one_learns_although_one_is_killed(
    tmp_path: Path, offline: Settings
) -> None:
    dataset, catalogue, output = (tmp_path / name for name in ("dataset", "items.jsonl", "model"))
    dataset_files.save(ring(), dataset)
    catalogue.write_bytes(b"\n".join(map(encode_json, items())) + b"\n")
    command = ["two-tower", "--dataset", dataset, "--items", catalogue, "--output", output]
    torchrun = Child(
        "torchrun",
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "--max-restarts", "1", "-m", "training", *command),
        ],
        tmp_path,
        environment(offline, DETERMINISTIC),
    )
    with torchrun:
        eventually((output / checkpoint.NAME).exists, "an epoch", 120)
        second = process_of(torchrun, 1)
        assert second is not None
        second.kill()
        assert torchrun.wait(120) == 0, torchrun.tail()
    lines = [line for line in torchrun.log.read_text().splitlines() if line.startswith("{")]
    events = [msgspec.json.decode(line) for line in lines]
    assert sum(event["event"] == "fit_resumed" for event in events) == 1, torchrun.tail(40)
    epochs = [event["epoch"] for event in events if event["event"] == "two_tower_epoch"]
    assert epochs == sorted(set(epochs)), "one process reports, and no epoch is trained twice"
    assert epochs[-1] == DETERMINISTIC.epochs
    assert torchrun.log.read_text().count("24 items, 16 dimensions") == 1
    assert not (output / checkpoint.NAME).exists()
    data = training_data(dataset_files.load(dataset), items())
    expected = two_tower.fit(data, DETERMINISTIC, offline.training_seed, FitOptions(1)).model
    model = TwoTowerModel.load(output)
    np.testing.assert_allclose(model.item_vectors, expected.item_vectors, atol=1e-3)
    for name, array in expected.arrays.items():
        np.testing.assert_allclose(model.arrays[name], array, atol=1e-3, err_msg=name)


@pytest.fixture
def started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the first of two on this machine."""
    of_torchrun = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    elastic = {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0}
    for name, value in (of_torchrun | address | elastic).items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("started_by_torchrun")
def test_processes_that_read_other_data_end_and_the_others_say_that_one_has_ended(
    tmp_path: Path,
) -> None:
    environment = {**os.environ, "RANK": "1", "LOCAL_RANK": "1"}
    other = Child("other", [sys.executable, "-c", OF_OTHER_DATA], tmp_path, environment)

    def fit() -> None:
        with torchrun.joined() as processes:
            with pytest.raises(ConfigurationError, match="differ in dataset"):
                processes.check_alike("data")
            assert other.wait(60) == 1
            assert "ConfigurationError: the processes" in other.tail()
            processes.any(True)

    with other, pytest.raises(ProcessFailed, match="another process of this fit has ended"):
        fit()


@pytest.mark.usefixtures("started_by_torchrun")
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigurationError, match="--nproc-per-node 1"), torchrun.joined():
        pass


@pytest.mark.usefixtures("started_by_torchrun")
def test_other_commands_refuse_torchrun() -> None:
    with pytest.raises(ConfigurationError, match="torchrun runs `training two-tower` only"):
        app(["retrain", "--no-lease"], standalone_mode=False)
