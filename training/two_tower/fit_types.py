"""Defines what a fit of Two-Tower takes and returns, without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.types import Item
from core.use_cases import UseCases
from models.two_tower import TwoTowerModel
from training.data.dataset import Bools, Dataset
from training.two_tower.processes import ONE_PROCESS, Processes

HELD_OUT_USERS = 5000
"""Users whose last item is held out for early stopping: NDCG@10 then has a standard error of about
0.002.
"""


@dataclass(frozen=True)
class TrainingData:
    """What a fit learns from.

    `entries`: the catalogue. `where` (n_events,) bool: the events to train on; None: all.
    `ordered` False: the order of a user's events has no meaning, so each epoch shuffles them; a
    user has each item once.
    """

    dataset: Dataset
    entries: Sequence[Item]
    use_cases: UseCases
    where: Bools | None = None
    ordered: bool = True


@dataclass(frozen=True)
class Progress:
    """The state after an epoch.

    `epoch`: from 1. `loss`: mean; NaN without a batch. `ndcg`: NDCG@10 of the held-out items, None
    without any; `best`: so far. `seconds`: since the fit began. `gains` (n,): of each held-out
    item.
    """

    epoch: int
    loss: float
    ndcg: float | None
    best: float | None
    seconds: float
    gains: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class FitOptions:
    """How a fit runs; only `seconds` and `held_out_users` change its result.

    `threads` 0: one a core. `seconds`: no batch starts later. `held_out_users`: most users whose
    last item is held out for early stopping; with 0 the last epoch is returned. `checkpoints`:
    folder that a killed fit of the same data and hyperparameters resumes from, with the same
    result. `on_epoch`, and `on_batch` with the number of epochs done, may raise to stop the fit.
    `processes`: those that fit together; their number changes which activations are dropped.
    """

    threads: int = 0
    seconds: float = float("inf")
    held_out_users: int = HELD_OUT_USERS
    checkpoints: Path | None = None
    on_epoch: Callable[[Progress], None] | None = None
    on_batch: Callable[[float], None] | None = None
    processes: Processes = ONE_PROCESS


DEFAULTS = FitOptions()


@dataclass(frozen=True)
class Fitted:
    """The result of a fit.

    `model` serves. `arrays`: of `Towers.export`; another fit may start from them. `facts`:
    hyperparameters, best epoch and its NDCG@10, for the manifest. `curve`: `epoch` from 1, `loss`
    and `ndcg@10` of each epoch, for reports.
    """

    model: TwoTowerModel
    arrays: Mapping[str, Any]
    facts: Mapping[str, Any]
    curve: Sequence[Mapping[str, float | None]] = ()
