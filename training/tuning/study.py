"""A search that goes on where it stood: an Optuna study in an SQLite file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Point = Mapping[str, float]


def opened(path: Path, name: str, seed: int, startup: int, pruner: Any, first: Sequence[Point]) -> Any:
    """The study `name` in the file at `path`, made if it is not there; TPE (Bergstra et al. 2011) maximizes.

    `startup`: trials before TPE starts to model; `first`: what a new study tries before anything else; the foremost, what is configured,
    is tried by an old one, too. A trial whose process was killed counts as failed, and what it tried is asked for again.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    known = len(storage.get_all_trials(storage.get_study_id_from_name(name))) if name in optuna.get_all_study_names(storage) else 0
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed + known, n_startup_trials=startup, multivariate=True),
        pruner=pruner,
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        again(study, trial)
    for point in first if known == 0 else first[:1]:
        study.enqueue_trial(dict(point), skip_if_exists=True)
    return study


def again(study: Any, trial: Any) -> None:
    """Give a trial up that did not come to its end, and ask for what it tried once more."""
    import optuna

    study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    study.enqueue_trial(trial.params)


def complete(study: Any) -> list[Any]:
    """The trials that were finished."""
    import optuna

    return [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE]


def ended(study: Any) -> int:
    """How many trials were finished or given up."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
