"""Opens hyperparameter searches: Optuna studies in memory, or in an SQLite file to resume from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Point = Mapping[str, float]


def open_study(
    path: Path | None, name: str, seed: int, startup: int, pruner: Any, first: Sequence[Point]
) -> Any:
    """Open the study `name` in the file at `path`, or create it; None: in memory, for one process.

    TPE (Bergstra et al. 2011) maximizes.

    `startup`: trials before TPE starts to model. `first`: points that a new study tries first; an
    existing one tries the first of them, the configured point. A trial of a killed process is
    marked as failed, and its point is enqueued again.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    storage = (
        optuna.storages.RDBStorage(f"sqlite:///{path}")
        if path is not None
        else optuna.storages.InMemoryStorage()
    )
    n_trials = (
        len(storage.get_all_trials(storage.get_study_id_from_name(name)))
        if name in optuna.get_all_study_names(storage)
        else 0
    )
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(
            seed=seed + n_trials, n_startup_trials=startup, multivariate=True
        ),
        pruner=pruner,
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        fail_and_retry(study, trial)
    for point in first if n_trials == 0 else first[:1]:
        study.enqueue_trial(dict(point), skip_if_exists=True)
    return study


def fail_and_retry(study: Any, trial: Any) -> None:
    """Mark an unfinished trial as failed, and enqueue its point again."""
    import optuna

    study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    study.enqueue_trial(trial.params)


def complete(study: Any) -> list[Any]:
    """The complete trials."""
    import optuna

    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state == optuna.trial.TrialState.COMPLETE
    ]


def count_ended(study: Any) -> int:
    """The number of trials that are complete, pruned or failed."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
