"""Saves and loads the state of a Two-Tower fit after each epoch, so that a killed fit resumes.

One .npz without pickle, written to a temporary file and renamed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from torch import nn

NAME = "two_tower_checkpoint.npz"

log = structlog.get_logger(__name__)


@dataclass
class State:
    """The state of a fit after `epoch` epochs.

    `best`: arrays of the best epoch by NDCG@10; None before the first one. `best_ndcg`: None
    without held-out users. `curve`: metrics by epoch, as in `Fitted`.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_ndcg: float | None = None
    best: Mapping[str, Any] | None = None
    curve: list[Mapping[str, float | None]] = field(default_factory=list)

    def add(self, loss: float, ndcg: float | None) -> bool:
        """Count an epoch; returns whether it is the best one so far, so that `best` must be set."""
        self.epoch += 1
        if math.isfinite(loss):  # neither an epoch without a batch nor one that diverged
            rounded = None if ndcg is None else round(ndcg, 6)
            self.curve.append({"epoch": self.epoch, "loss": round(loss, 6), "ndcg@10": rounded})
        if ndcg is not None and self.best_ndcg is not None and not ndcg > self.best_ndcg:
            return False
        self.best_ndcg, self.best_epoch = ndcg, self.epoch
        return True


def save(
    folder: Path, identity: str, state: State, towers: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write the state of a fit into `folder`. `identity`: hash of its data and hyperparameters."""
    about = {
        "identity": identity,
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "best_ndcg": state.best_ndcg,
        "curve": state.curve,
    }
    arrays: dict[str, Any] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    arrays |= {f"best/{name}": array for name, array in (state.best or {}).items()}
    arrays |= {
        f"now/{name}": value.detach().cpu().numpy() for name, value in towers.named_parameters()
    }
    for number, moments in optimizer.state_dict()["state"].items():
        arrays |= {f"adam/{number}/{name}": value.cpu().numpy() for name, value in moments.items()}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (NAME + ".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    temporary.replace(folder / NAME)


def read(folder: Path, identity: str) -> Mapping[str, Any] | None:
    """The arrays of the checkpoint in `folder`.

    None when there is no checkpoint; also, with a warning in the log, when it cannot be read or has
    another identity.
    """
    path = folder / NAME
    try:
        with np.load(path, allow_pickle=False) as checkpoint:
            about = json.loads(checkpoint["about"].tobytes())
            if about["identity"] != identity:
                log.warning("checkpoint_of_other_fit_ignored", path=str(path))
                return None
            arrays = {name: checkpoint[name] for name in checkpoint.files}
    except FileNotFoundError:
        return None
    # zipfile, numpy and json each raise errors of their own for a damaged file
    except Exception as error:  # noqa: BLE001
        log.warning("checkpoint_unreadable", path=str(path), cause=str(error))
        return None
    log.info("fit_resumed", path=str(path), epoch=about["epoch"])
    return arrays


def restore(
    arrays: Mapping[str, Any], towers: nn.Module, optimizer: torch.optim.Optimizer
) -> State:
    """Copy the `arrays` of a checkpoint into `towers` and `optimizer`, and return its state."""
    about = json.loads(arrays["about"].tobytes())
    with torch.no_grad():
        for name, parameter in towers.named_parameters():
            parameter.copy_(torch.from_numpy(arrays[f"now/{name}"]))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        if name.startswith("adam/"):
            _, number, kind = name.split("/")
            moments.setdefault(int(number), {})[kind] = torch.from_numpy(array.copy())
    optimizer.load_state_dict(
        {"state": moments, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    best = {
        name.removeprefix("best/"): array
        for name, array in arrays.items()
        if name.startswith("best/")
    }
    return State(
        about["epoch"],
        about["best_epoch"],
        about["best_ndcg"],
        best or None,
        about.get("curve", []),
    )


def remove(folder: Path) -> None:
    """Delete the checkpoint of a finished fit."""
    (folder / NAME).unlink(missing_ok=True)
