"""Fits Two-Tower by the settings, with progress and checkpoints, for the command line and for a
retrain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
import typer

from core.errors import ConfigurationError
from core.settings import Settings
from core.types import Item
from models.two_tower import TwoTowerModel
from training.data import dataset_files, items
from training.data.dataset import Bools, Dataset, Split
from training.job.run import Run
from training.progress import progress

if TYPE_CHECKING:
    from training.two_tower.fit import Fitted, Progress

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


def tuned(settings: Settings, path: Path | None) -> Settings:
    """The settings with the Two-Tower hyperparameters in the JSON file at `path`, if it has any.

    Raises ConfigurationError.
    """
    if path is None:
        return settings
    try:
        hyperparameters = msgspec.json.decode(
            path.read_bytes(), type=dict[str, dict[str, Any]]
        ).get("two_tower", {})
        return settings.with_overrides(
            {f"two_tower_{name}": value for name, value in hyperparameters.items()}
        )
    except (OSError, msgspec.MsgspecError, ConfigurationError) as error:
        raise ConfigurationError(
            f"{path} holds no hyperparameters of Two-Tower ({error}); `python -m training "
            f"tune` writes some"
        ) from None


def fit_two_tower(
    settings: Settings,
    folder: Path,
    items_path: Path | None,
    hyperparameters: Path | None,
    output: Path,
    threads: int,
) -> None:
    """Run `two-tower`: fit on the dataset in `folder` and write the model into `output`.

    Raises ConfigurationError without torch.
    """
    if find_spec("torch") is None:
        raise ConfigurationError(
            "Two-Tower is trained by torch, which is not installed; install requirements/train.txt"
        )
    data = dataset_files.load(folder)
    entries = items.read(items_path) if items_path is not None else []
    model = fit(
        data, entries, tuned(settings, hyperparameters), threads=threads, checkpoints=output
    ).model
    model.save(output)
    typer.echo(f"{output}: {model.facts.items} items, {model.facts.dimension} dimensions")


def fit(
    data: Dataset,
    entries: Sequence[Item],
    settings: Settings,
    *,
    where: Bools | None = None,
    threads: int = 0,
    checkpoints: Path | None = None,
    run: Run | None = None,
) -> Fitted:
    """Run `two_tower.fit` on the events in `where` (default: all).

    `checkpoints`: folder that a killed fit resumes from; the checkpoint is deleted after the fit.
    Raises DatasetError, and Interrupted when `run` is stopped.
    """
    from training.two_tower import checkpoint as two_tower_checkpoint
    from training.two_tower import fit as two_tower

    hyperparameters = two_tower.hyperparameters(settings)
    with _progress(hyperparameters.epochs, run) as (on_epoch, on_batch):
        fitted = two_tower.fit(
            data,
            entries,
            settings.use_cases,
            hyperparameters,
            settings.training_seed,
            where=where,
            seconds=settings.two_tower_seconds,
            threads=threads,
            folder=checkpoints,
            on_epoch=on_epoch,
            on_batch=on_batch,
        )
    if checkpoints is not None:
        two_tower_checkpoint.remove(checkpoints)
    return fitted


def fit_before(
    data: Dataset,
    where: Bools | None,
    entries: Sequence[Item],
    settings: Settings,
    threads: int,
    run: Run | None = None,
    checkpoints: Path | None = None,
) -> Fitted | None:
    """Run `fit` on the events in `where`, those before the cut.

    Returns None, and logs why, when Two-Tower is off or torch missing.
    """
    if cause := unavailable(settings):
        log.info("two_tower_skipped", cause=cause)
        return None
    return fit(
        data, entries, settings, where=where, threads=threads, checkpoints=checkpoints, run=run
    )


def refresh(
    fitted: Fitted | None,
    data: Dataset,
    split: Split | None,
    entries: Sequence[Item],
    settings: Settings,
    threads: int,
    run: Run,
) -> TwoTowerModel | None:
    """The model of `fit_before` after `two_tower.refresh` over all events; `fitted` itself when it
    was fitted on all of them.
    """
    if fitted is None or split is None:
        return None if fitted is None else fitted.model
    from training.two_tower import fit as two_tower

    # no bar: the evaluation, which runs at the same time, shows its own
    def on_batch(done: float) -> None:
        run.progress(f"refreshing Two-Tower: epoch {int(done) + 1} of {two_tower.REFRESH_EPOCHS}")

    started = time.monotonic()
    hyperparameters = two_tower.hyperparameters(settings)
    seed = settings.training_seed
    fresh = two_tower.refresh(
        fitted,
        data,
        entries,
        settings.use_cases,
        hyperparameters,
        seed,
        threads=threads,
        on_batch=on_batch,
    )
    run.seconds["two_tower_refresh"] = round(time.monotonic() - started, 3)
    return fresh.model


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
