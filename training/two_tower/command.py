"""Fits Two-Tower with a progress bar, for the command line and for a retrain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import structlog
import typer

from core.errors import ConfigurationError
from core.settings import Settings
from training.data import dataset_files, items
from training.data.table_files import Source
from training.job.run import Run
from training.progress import progress
from training.two_tower.fit_types import FitOptions, Fitted, Progress, TrainingData
from training.two_tower.hyperparameters import Hyperparameters
from training.two_tower.hyperparameters import hyperparameters as two_tower_hyperparameters

# torch takes seconds to import and only the trainer has it, so the functions that train import it.

log = structlog.get_logger(__name__)


def unavailable(settings: Settings) -> str | None:
    """Why Two-Tower cannot be trained here; None when it can."""
    if not settings.enable_two_tower:
        return "disabled by ENABLE_TWO_TOWER=false"
    return (
        None
        if find_spec("torch") is not None
        else "torch is not installed; requirements/train.txt has it"
    )


def fit_two_tower(
    settings: Settings,
    folder: Path,
    items_file: Source | None,
    hyperparameters: Path | None,
    output: Path,
    threads: int,
) -> None:
    """Run `two-tower`: fit on the dataset in `folder` and write the model into `output`.

    Under torchrun all its processes fit, and the first one writes. Raises ConfigurationError
    without torch, ProcessFailed when another process of torchrun ends.
    """
    if find_spec("torch") is None:
        raise ConfigurationError(
            "Two-Tower is trained by torch, which is not installed; install requirements/train.txt"
        )
    from training.two_tower import checkpoint, torchrun

    entries = items.read(items_file) if items_file is not None else []
    data = TrainingData(dataset_files.load(folder), entries, settings.use_cases)
    values, seed = two_tower_hyperparameters(settings, hyperparameters), settings.training_seed
    with torchrun.joined() as processes:
        options = FitOptions(
            threads, settings.two_tower_seconds, checkpoints=output, processes=processes
        )
        model = fit(data, values, seed, options).model
        if processes.first:
            model.save(output)
            checkpoint.remove(output)
            facts = model.facts
            typer.echo(f"{output}: {facts.items} items, {facts.dimension} dimensions")


def fit(
    data: TrainingData,
    hyperparameters: Hyperparameters,
    seed: int,
    options: FitOptions,
    run: Run | None = None,
) -> Fitted:
    """Run `two_tower.fit`; the first of several processes shows its progress.

    Raises DatasetError, and Interrupted when `run` is stopped.
    """
    from training.two_tower import fit as two_tower

    if not options.processes.first:
        return two_tower.fit(data, hyperparameters, seed, options)
    with _progress(hyperparameters.epochs, run) as (on_epoch, on_batch):
        shown = replace(options, on_epoch=on_epoch, on_batch=on_batch)
        return two_tower.fit(data, hyperparameters, seed, shown)


def fit_if_available(
    settings: Settings,
    data: TrainingData,
    hyperparameters: Hyperparameters,
    options: FitOptions,
    run: Run | None = None,
) -> Fitted | None:
    """Run `fit`, and delete its checkpoint.

    Returns None, and logs why, when Two-Tower is disabled or torch is missing.
    """
    if cause := unavailable(settings):
        log.info("two_tower_skipped", cause=cause)
        return None
    from training.two_tower import checkpoint

    fitted = fit(data, hyperparameters, settings.training_seed, options, run)
    if options.checkpoints is not None:
        checkpoint.remove(options.checkpoints)
    return fitted


@contextmanager
def _progress(
    epochs: int, run: Run | None
) -> Iterator[tuple[Callable[[Progress], None], Callable[[float], None]]]:
    """The callbacks after each epoch and before each batch, which show progress."""
    started = time.monotonic()
    with progress("fitting Two-Tower", epochs) as show:

        def on_batch(done: float) -> None:
            show.at(done, f"epoch {int(done) + 1}")
            if run is not None:
                run.progress(f"Two-Tower: epoch {int(done) + 1} of at most {epochs}")

        def on_epoch(now: Progress) -> None:
            ndcg = "" if now.ndcg is None else f", NDCG@10 {now.ndcg:.4f}, best {now.best:.4f}"
            show.at(now.epoch, f"epoch {now.epoch}, loss {now.loss:.3f}{ndcg}")
            log.info(
                "two_tower_epoch",
                epoch=now.epoch,
                loss=round(now.loss, 4),
                ndcg=now.ndcg,
                seconds=round(now.seconds, 1),
            )

        yield on_epoch, on_batch
    if run is not None:
        run.seconds["two_tower"] = round(time.monotonic() - started, 3)
