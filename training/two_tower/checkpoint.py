"""What a killed Two-Tower fit goes on from: everything after an epoch in one .npz, written beside and renamed. No pickle."""

from __future__ import annotations

import json
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
    """How far a fit is: `epoch` whole epochs, and the arrays of the best one by NDCG@10 (None: no epoch yet, or nobody was held out).

    `curve`: what each epoch came to, as `Fitted` keeps it.
    """

    epoch: int = 0
    best_epoch: int = 0
    best_ndcg: float | None = None
    best: Mapping[str, Any] | None = None
    curve: list[Mapping[str, float | None]] = field(default_factory=list)


def save(folder: Path, identity: str, state: State, towers: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write the state of a fit; `identity` says of which data and hyperparameters."""
    about = {
        "identity": identity,
        "epoch": state.epoch,
        "best_epoch": state.best_epoch,
        "best_ndcg": state.best_ndcg,
        "curve": state.curve,
    }
    arrays: dict[str, Any] = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    arrays |= {f"best/{name}": array for name, array in (state.best or {}).items()}
    arrays |= {f"now/{name}": value.detach().cpu().numpy() for name, value in towers.named_parameters()}
    for number, moments in optimizer.state_dict()["state"].items():
        arrays |= {f"adam/{number}/{name}": value.cpu().numpy() for name, value in moments.items()}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / (NAME + ".tmp")
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    temporary.replace(folder / NAME)


def load(folder: Path, identity: str, towers: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Put towers and optimizer where the checkpoint left them. A new State when there is none, or one of another fit, which is said."""
    path = folder / NAME
    try:
        with np.load(path, allow_pickle=False) as held:
            about = json.loads(held["about"].tobytes())
            if about["identity"] != identity:
                log.warning("a checkpoint of other data or hyperparameters is not used", path=str(path))
                return State()
            arrays = {name: held[name] for name in held.files}
    except FileNotFoundError:
        return State()
    except Exception as error:  # noqa: BLE001 - zipfile, numpy and json each raise their own kinds on a damaged file
        log.warning("a checkpoint cannot be read, so the fit starts anew", path=str(path), cause=str(error))
        return State()
    with torch.no_grad():
        for name, parameter in towers.named_parameters():
            parameter.copy_(torch.from_numpy(arrays[f"now/{name}"]))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        if name.startswith("adam/"):
            _, number, kind = name.split("/")
            moments.setdefault(int(number), {})[kind] = torch.from_numpy(array.copy())
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    best = {name.removeprefix("best/"): array for name, array in arrays.items() if name.startswith("best/")}
    log.info("going on from a checkpoint", path=str(path), epoch=about["epoch"])
    return State(about["epoch"], about["best_epoch"], about["best_ndcg"], best or None, about.get("curve", []))


def remove(folder: Path) -> None:
    """After a fit that is done."""
    (folder / NAME).unlink(missing_ok=True)
