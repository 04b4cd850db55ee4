"""Fits the models that `benchmarks.quality_ensemble` judges, or loads them from a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.ranking.quality_protocols import Protocol
from core.settings import Settings
from models import files
from models.als import ALSModel
from models.two_tower import TwoTowerModel
from training import als
from training.two_tower import fit as two_tower
from training.two_tower.fit_types import HELD_OUT_USERS, FitOptions, Progress, TrainingData
from training.two_tower.hyperparameters import Hyperparameters
from training.two_tower.samples import HeldOut, Sequences

Model = TypeVar("Model", ALSModel, TwoTowerModel)


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """The hyperparameters of a fit, and who is held out.

    The last new item of at most `choosing_users` users is held out: it decides when Two-Tower stops
    and which blend is best.
    """

    als: als.Hyperparameters
    two_tower: Hyperparameters
    choosing_users: int = HELD_OUT_USERS
    ordered: bool = True


@dataclass(frozen=True)
class Models:
    """`als` knows every training row; `als_before` and `two_tower` know only the events `before
    (n_events,)`, without those `held_out`.
    """

    als: ALSModel
    als_before: ALSModel
    two_tower: TwoTowerModel
    held_out: HeldOut
    before: npt.NDArray[np.bool_]


def models(protocol: Protocol, fit: Fit, seed: int, folder: Path, threads: int) -> Models:
    """Those kept in `folder`, fitted now if they are not there.

    Raises ValueError when they were made from something else.
    """
    data = protocol.data
    sequences = Sequences.of(data, None, Settings().use_cases)
    # as two_tower.fit does
    _, last = sequences.without_last(np.random.default_rng(seed), fit.choosing_users)
    held_out = HeldOut(
        last.users, data.items.rows(sequences.items.ids)[last.items].astype(np.int64)
    )
    pairs = data.user.astype(np.int64) * len(data.items) + data.item
    before = ~np.isin(pairs, held_out.users * len(data.items) + held_out.items)

    def load_or_fit(
        name: str, hyperparameters: Any, load: Callable[[Path], Model], make: Callable[[], Model]
    ) -> Model:
        about = {
            "told": msgspec.to_builtins(hyperparameters),
            "seed": seed,
            "data": data.sha256,
            "voters": fit.choosing_users,
        }
        if not (folder / name / "made.json").exists():
            make().save(folder / name)
            files.write_json(folder / name / "made.json", about)
        if files.read_json(folder / name / "made.json", dict[str, Any]) != about:
            raise ValueError(
                f"the model in {folder / name} was fitted otherwise; remove it or name "
                f"another folder"
            )
        return load(folder / name)

    def by_als(where: npt.NDArray[np.bool_] | None) -> ALSModel:
        return als.fit(data.interactions(where), fit.als, seed, threads=threads)

    return Models(
        two_tower=load_or_fit(
            "two_tower",
            fit.two_tower,
            TwoTowerModel.load,
            lambda: _two_tower(protocol, fit, seed, folder, threads),
        ),
        als=load_or_fit("als", fit.als, ALSModel.load, lambda: by_als(None)),
        als_before=load_or_fit("als_before", fit.als, ALSModel.load, lambda: by_als(before)),
        held_out=held_out,
        before=before,
    )


def _two_tower(
    protocol: Protocol, fit: Fit, seed: int, folder: Path, threads: int
) -> TwoTowerModel:
    def show(now: Progress) -> None:
        print(
            (
                f"  epoch {now.epoch}  loss {now.loss:.3f}  validation NDCG@10 {now.ndcg:.4f}  "
                f"{now.seconds:.0f} s"
            ),
            flush=True,
        )

    data = TrainingData(protocol.data, protocol.entries, Settings().use_cases, ordered=fit.ordered)
    options = FitOptions(
        threads, held_out_users=fit.choosing_users, checkpoints=folder, on_epoch=show
    )
    return two_tower.fit(data, fit.two_tower, seed, options).model
