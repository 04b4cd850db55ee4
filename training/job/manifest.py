"""Describes a bundle, how to make it again and how good it is: its manifest and evaluation/."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from models.router import served
from training import als
from training.evaluation import output
from training.job import gate
from training.job.context import Context
from training.report import page
from training.tuning import record as tuning_record

if TYPE_CHECKING:
    from training.data.dataset import Dataset
    from training.job.stages import Evaluated, Fitted, TrainingSet
    from training.two_tower.fit_types import Fitted as FittedTwoTower

LIBRARIES = ("implicit", "numpy", "scipy", "scikit-learn", "pyarrow")


def describe(
    context: Context,
    training: TrainingSet,
    fitted: Fitted,
    evaluated: Evaluated,
    verdict: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest's fields that a retrain decides.

    The registry adds the version, the time and the files' checksums.
    """
    settings, split, evaluation, two_tower = (
        context.settings,
        training.split,
        evaluated.evaluation,
        fitted.two_tower,
    )
    positions = {str(partition): offset for partition, offset in training.data.positions.items()}
    describes = f"the model in {gate.JUDGED_ALS}, fitted before the cut"
    return {
        "positions": {settings.interactions_topic: positions},
        "seeds": {"training": context.seed},
        "settings": {
            "als": msgspec.to_builtins(context.als),
            "als_engine": settings.als_engine,
            "two_tower": two_tower.facts if two_tower is not None else None,
            "ensemble": evaluated.blend.facts() if evaluated.blend is not None else None,
            "refresh_sweeps": _refresh_sweeps(context) if split is not None else 0,
            "hyperparameters_from": str(
                context.options.hyperparameters
                or ("settings" if context.tuning is None else tuning_record.FILE)
            ),
            "tuning": context.tuning.summary() if context.tuning is not None else None,
            "holdout_fraction": settings.holdout_fraction,
            "popularity_half_life_days": settings.popularity_half_life_days,
            "history_cap": settings.history_cap,
            "dedup_window": settings.dedup_window,
            "event_weights": dict(settings.use_cases.event_types),
        },
        "metrics": {
            "dataset": training.data.summary(),
            "headline": output.headline(evaluation) if evaluation is not None else {},
            served.FIELD: msgspec.to_builtins(evaluated.served),
            "describes": describes
            if evaluation is not None
            else f"nothing: {fitted.comparison.unjudged}",
            "cut": split.cut if split is not None else None,
            "seconds": dict(context.run.seconds),
        },
        "libraries": {
            name: version(name)
            for name in (
                *LIBRARIES,
                *(("torch",) if two_tower is not None else ()),
                *(("pyspark",) if settings.als_engine == "spark" else ()),
            )
        },
        "gate": dict(verdict),
    }


def _refresh_sweeps(context: Context) -> int:
    """Sweeps over every event after the fit before the cut; Spark begins a fit of its own."""
    is_spark = context.settings.als_engine == "spark"
    return context.als.iterations if is_spark else als.REFRESH_SWEEPS


def save_evaluation(
    folder: Path,
    manifest: Mapping[str, Any],
    training: TrainingSet,
    fitted: Fitted,
    evaluated: Evaluated,
) -> None:
    """Write metrics.json, metrics.csv and report.html, where users were judged."""
    if evaluated.evaluation is None:
        return
    facts = evaluation_facts(training.data, fitted.two_tower, evaluated)
    output.save(evaluated.evaluation, folder, {"describes": gate.JUDGED_ALS, **facts})
    page.write(folder, manifest)


def evaluation_facts(
    data: Dataset, two_tower: FittedTwoTower | None, evaluated: Evaluated
) -> dict[str, Any]:
    """What metrics.json says beside the metrics: the data, and how the models were made."""
    return {
        "dataset": data.sha256,
        "two_tower": two_tower.curve if two_tower is not None else [],
        "blends": evaluated.blend.table() if evaluated.blend is not None else None,
        served.FIELD: msgspec.to_builtins(evaluated.served),
    }
