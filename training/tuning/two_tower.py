"""Hyperparameters of Two-Tower under a time budget: TPE by `optuna`, judged by NDCG@10 of held-out last items after every epoch.

The held-out items are those that tell every fit when to stop, so a trial costs one fit and nothing else. It is given up where it lies
below the median of the earlier ones at the same epoch. When the time is over in the middle of a fit, the fit stops there: the next run
goes on from its last whole epoch. A fit takes minutes where one of ALS takes seconds, so the first trial is the settings' own
hyperparameters, few dimensions are searched, and what costs a reader time (history, heads) is left to the settings.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from core.errors import DatasetError
from core.settings import Settings
from core.types import Item
from training.data.dataset import Dataset
from training.progress import progress
from training.tuning import study as tune_study
from training.two_tower import checkpoint as two_tower_checkpoint
from training.two_tower import fit as two_tower
from training.two_tower.fit import Hyperparameters, Progress

HEAD_DIMENSION, LAYERS = (16, 48), (1, 3)
"""Dimension is that of a head times the heads. With two heads, 32 to 96: above, a read costs more than a millisecond."""
DROPOUT, ID_DROPOUT = (0.0, 0.6), (0.0, 0.3)
LEARNING_RATE = (0.0005, 0.01)
"""On a log scale. A range is widened to what is configured."""
RANDOM_TRIALS = 6
"""Trials before TPE starts to model."""
PRUNE_AFTER, PRUNE_FROM = 2, 3
"""Whole trials before any is given up, and the first epoch at which one may be: strong dropout starts slowly and ends high."""
SEARCHED = ("dimension", "layers", "dropout", "id_dropout", "learning_rate")
SHOWN = 5
_BEST = "best"


def search(
    dataset: Dataset, entries: Sequence[Item], settings: Settings, *, minutes: float, trials: int | None, study_path: Path, threads: int = 0
) -> dict[str, Any]:
    """Search for `minutes` (and at most `trials` more trials) and return what the report and the file of `tune` say.

    No batch starts after the time is over; even then there is an answer, of a fit that was cut short. Raises DatasetError when there is
    nothing to learn.
    """
    import optuna

    began = time.monotonic()
    deadline = began + 60.0 * minutes
    configured = two_tower.hyperparameters(settings)
    about = (dataset.sha256, entries, *(getattr(configured, name) for name in configured.__struct_fields__ if name not in SEARCHED))
    name = f"two-tower-{hashlib.sha256(msgspec.json.encode(about)).hexdigest()[:16]}-seed-{settings.training_seed}"
    pruner = optuna.pruners.MedianPruner(n_startup_trials=PRUNE_AFTER, n_warmup_steps=PRUNE_FROM)
    study = tune_study.opened(study_path, name, settings.training_seed, RANDOM_TRIALS, pruner, [_point(configured)])
    checkpoints = study_path.with_name(f"{study_path.stem}-two-tower")

    with progress("searching", total=60.0 * minutes) as show:

        def one_more() -> None:
            trial = study.ask()
            chosen = _suggested(trial, configured)

            def judge(now: Progress) -> None:
                if now.ndcg is None or now.best is None:
                    raise DatasetError("no user has two items, so none can be held out; collect more events before tuning")
                trial.report(now.ndcg, now.epoch)
                trial.set_user_attr(_BEST, now.best)
                show.at(time.monotonic() - began, f"trial {trial.number}, epoch {now.epoch}: {now.ndcg:.4f}, its best {now.best:.4f}")
                if time.monotonic() < deadline and trial.should_prune():
                    raise optuna.TrialPruned

            try:
                fitted = two_tower.fit(
                    dataset,
                    entries,
                    settings.use_cases,
                    chosen,
                    settings.training_seed,
                    seconds=deadline - time.monotonic(),
                    threads=threads,
                    folder=checkpoints,
                    on_epoch=judge,
                )
            except optuna.TrialPruned:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                best = fitted.facts["validation_ndcg@10"]
                trial.set_user_attr(_BEST, best)  # nothing was told when the checkpoint was of the last epoch
                if time.monotonic() >= deadline:
                    return tune_study.again(study, trial)
                study.tell(trial, best)
            return two_tower_checkpoint.remove(checkpoints)

        left = count() if trials is None else range(trials)
        for _ in left:
            one_more()
            if time.monotonic() >= deadline:
                break

    # A fit that was cut short counts by its best epoch so far: what is configured comes first, so nothing wins for being alone.
    tried = [trial for trial in study.get_trials(deepcopy=False) if _BEST in trial.user_attrs]
    ranked: list[dict[str, Any]] = []
    for trial in sorted(tried, key=_value, reverse=True):
        row = _row(trial, configured)
        if all(any(row[name] != better[name] for name in SEARCHED) for better in ranked):
            ranked.append(row)
    return {
        "two_tower": {name: ranked[0][name] for name in configured.__struct_fields__},
        "tuned": {
            "objective": "NDCG@10",
            "validation": "the last items that tell a fit when to stop",
            "ranked_among": "the whole catalogue",
            "value": ranked[0]["value"],
            "configured": next((row["value"] for row in ranked if all(row[name] == getattr(configured, name) for name in SEARCHED)), None),
            "trials": tune_study.ended(study),
            "finished": len(tune_study.complete(study)),
            "seconds": round(time.monotonic() - began, 1),
            "minutes": round(minutes, 3),
            "cores": os.cpu_count(),
            "seed": settings.training_seed,
            "dataset": dataset.summary(),
            "best": ranked[:SHOWN],
        },
    }


def report(found: dict[str, Any], console: Console) -> None:
    """The search in a few lines on the terminal."""
    tuned = found["tuned"]
    table = Table(title=f"Two-Tower: best of {tuned['finished']} finished and {tuned['trials'] - tuned['finished']} other trials")
    for column in (tuned["objective"], *SEARCHED, "came to its end"):
        table.add_column(column, justify="right")
    for row in tuned["best"]:
        table.add_row(f"{row['value']:.4f}", *(f"{row[name]:.3g}" for name in SEARCHED), row["ended"])
    console.print(table)
    if tuned["configured"] is not None:
        console.print(f"The configured hyperparameters reach {tuned['configured']:.4f} on this validation split.")


def _point(configured: Hyperparameters) -> dict[str, float]:
    return {
        "head_dimension": configured.dimension // configured.heads,
        "layers": configured.layers,
        "dropout": configured.dropout,
        "id_dropout": configured.id_dropout,
        "learning_rate": configured.learning_rate,
    }


def _suggested(trial: Any, configured: Hyperparameters) -> Hyperparameters:
    here = _point(configured)

    def within(name: str, limits: tuple[float, float]) -> tuple[float, float]:
        return min(limits[0], here[name]), max(limits[1], here[name])

    return _chosen(
        {
            "head_dimension": trial.suggest_int("head_dimension", *within("head_dimension", HEAD_DIMENSION), log=True),
            "layers": trial.suggest_int("layers", *within("layers", LAYERS)),
            "dropout": trial.suggest_float("dropout", *within("dropout", DROPOUT)),
            "id_dropout": trial.suggest_float("id_dropout", *within("id_dropout", ID_DROPOUT)),
            "learning_rate": trial.suggest_float("learning_rate", *within("learning_rate", LEARNING_RATE), log=True),
        },
        configured,
    )


def _chosen(params: dict[str, Any], configured: Hyperparameters) -> Hyperparameters:
    named = {name: value for name, value in params.items() if name != "head_dimension"}
    return msgspec.structs.replace(configured, dimension=params["head_dimension"] * configured.heads, **named)


def _value(trial: Any) -> float:
    return float(trial.user_attrs[_BEST])


def _row(trial: Any, configured: Hyperparameters) -> dict[str, Any]:
    ended = {"COMPLETE": "yes", "PRUNED": "given up"}.get(trial.state.name, "not yet")
    return {"value": _value(trial), "ended": ended, **msgspec.to_builtins(_chosen(trial.params, configured))}
