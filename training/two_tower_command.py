"""Two-Tower for `python -m training two-tower` and for a retrain: by the settings, with a bar and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import typer

from core.errors import ConfigurationError
from core.settings import Settings
from core.types import Item
from training import dataset, items
from training.dataset import Bools, Dataset
from training.progress import progress

if TYPE_CHECKING:
    from training.two_tower import Fitted, Progress

# torch takes seconds to import and only the trainer has it, so the functions that train import it.

log = structlog.get_logger(__name__)


def unavailable(settings: Settings) -> str | None:
    """Why no Two-Tower is trained here, or None."""
    if not settings.enable_two_tower:
        return "disabled by ENABLE_TWO_TOWER=false"
    return None if find_spec("torch") is not None else "torch is not installed; requirements/train.txt has it"


def fit_two_tower(settings: Settings, folder: Path, items_path: Path | None, output: Path, threads: int) -> None:
    """`two-tower`. Raises ConfigurationError without torch."""
    if find_spec("torch") is None:
        raise ConfigurationError("Two-Tower is trained by torch, which is not installed; install requirements/train.txt")
    data = dataset.load(folder)
    entries = items.read(items_path) if items_path is not None else []
    model = fit(data, entries, settings, threads=threads, checkpoints=output).model
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
) -> Fitted:
    """`two_tower.fit` on the events in `where` (all). `checkpoints`: folder of what a killed fit goes on from; none is left after.

    Raises DatasetError.
    """
    from training import two_tower, two_tower_checkpoint

    chosen = two_tower.hyperparameters(settings)
    with _told("fitting Two-Tower", chosen.epochs) as told:
        fitted = two_tower.fit(
            data,
            entries,
            settings.use_cases,
            chosen,
            settings.training_seed,
            where=where,
            seconds=settings.two_tower_seconds,
            threads=threads,
            folder=checkpoints,
            on_epoch=told,
        )
    if checkpoints is not None:
        two_tower_checkpoint.remove(checkpoints)
    return fitted


def refresh(fitted: Fitted, data: Dataset, entries: Sequence[Item], settings: Settings, *, threads: int = 0) -> Fitted:
    """`two_tower.refresh`: `fitted` on the training part, brought up to date with every event."""
    from training import two_tower

    with _told("refreshing Two-Tower", two_tower.REFRESH_EPOCHS) as told:
        return two_tower.refresh(
            fitted,
            data,
            entries,
            settings.use_cases,
            two_tower.hyperparameters(settings),
            settings.training_seed,
            threads=threads,
            on_epoch=told,
        )


@contextmanager
def _told(what: str, epochs: int) -> Iterator[Callable[[Progress], None]]:
    with progress(what, epochs) as show:

        def told(now: Progress) -> None:
            judged = "" if now.ndcg is None else f", NDCG@10 {now.ndcg:.4f}, best {now.best:.4f}"
            show.at(now.epoch, f"epoch {now.epoch}, loss {now.loss:.3f}{judged}")
            log.info("two-tower", what=what, epoch=now.epoch, loss=round(now.loss, 4), ndcg=now.ndcg, seconds=round(now.seconds, 1))

        yield told
