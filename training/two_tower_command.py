"""Two-Tower for `python -m training two-tower` and for a retrain: a fit with a bar and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
import typer

from core.settings import Settings
from core.types import Item
from models.two_tower import TwoTowerModel
from training import dataset, items
from training.dataset import Bools, Dataset
from training.progress import progress

log = structlog.get_logger(__name__)


def fit_two_tower(settings: Settings, folder: Path, items_path: Path | None, output: Path, threads: int) -> None:
    """`two-tower`."""
    data = dataset.load(folder)
    entries = items.read(items_path) if items_path is not None else []
    model = fit(data, entries, settings, settings.training_seed, threads=threads, checkpoints=output)
    model.save(output)
    typer.echo(f"{output}: {model.facts.items} items, {model.facts.dimension} dimensions")


def fit(
    data: Dataset,
    entries: Sequence[Item],
    settings: Settings,
    seed: int,
    *,
    where: Bools | None = None,
    threads: int = 0,
    checkpoints: Path | None = None,
) -> TwoTowerModel:
    """`two_tower.fit` by the settings, with a bar. `checkpoints`: folder of what a killed fit goes on from; nothing is left there after.

    Raises DatasetError, and ModuleNotFoundError where torch is not installed.
    """
    from training import two_tower, two_tower_checkpoint  # here: importing torch takes seconds, and only this needs it

    chosen = two_tower.hyperparameters(settings)
    with progress("fitting Two-Tower", chosen.epochs) as show:

        def told(now: Any) -> None:
            log.info(
                "two-tower epoch", epoch=now.epoch, loss=round(now.loss, 4), ndcg=now.ndcg, best=now.best, seconds=round(now.seconds, 1)
            )
            show.at(now.epoch, f"epoch {now.epoch}, NDCG@10 {now.ndcg or 0:.4f}")

        model = two_tower.fit(
            data,
            entries,
            settings.use_cases,
            chosen,
            seed,
            where=where,
            seconds=settings.two_tower_seconds,
            threads=threads,
            folder=checkpoints,
            on_epoch=told,
        )
    if checkpoints is not None:
        two_tower_checkpoint.remove(checkpoints)
    return model
