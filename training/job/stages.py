"""The stages of a retrain as functions over typed results.

Snapshot -> TrainingSet -> Context with the tuned hyperparameters -> Fitted -> Evaluated -> Verdict
-> version. `retrain` calls them in order; each takes the context of the run and what the stages
before it returned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console

from core.deletions import IdHasher
from core.errors import DatasetError, GateRefused
from core.redaction import masked_url
from core.types import Item
from models import files
from models import refused as refused_bundle
from models.als import ALSModel
from models.bundle import CATALOGUE, Bundle
from models.router import served
from models.router.served import Served
from models.two_tower import TwoTowerModel
from store.archive.archive import Archive
from store.state import retrains
from store.state.apply import deletions
from store.state.apply.deletions import DeletedUsers
from store.state.entities import catalogue
from store.state.shards import Shards
from training.blend import choice
from training.blend.grid import BlendChoice
from training.data import dataset, dataset_files, events, items
from training.data.dataset import Dataset, Split
from training.evaluation import evaluate, output
from training.evaluation.evaluate import Evaluation, Inputs
from training.evaluation.population import JudgedUsers
from training.job import fitting, gate, router, tuning
from training.job.background import Comparison, prepare_comparison
from training.job.context import Context
from training.job.manifest import describe, save_evaluation
from training.spark.retrain import ALSFits
from training.tuning import record as tuning_record
from training.two_tower.fit_types import Fitted as FittedTwoTower
from training.two_tower.fit_types import TrainingData

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """The input of a retrain.

    These are archive positions by partition, the catalogue, and the deleted users.
    """

    positions: dict[int, int]
    entries: list[Item]
    deleted: DeletedUsers


@dataclass(frozen=True)
class TrainingSet:
    """The events as a dataset, and its split by time; `unsplit` says why there is none."""

    data: Dataset
    split: Split | None
    unsplit: str


@dataclass(frozen=True)
class Fitted:
    """The models fitted before the cut, and the refreshed models that are still being fitted.

    `comparison`: the inputs of their evaluation.
    """

    als: ALSModel
    two_tower: FittedTwoTower | None
    comparison: Comparison
    refreshed_als: Future[ALSModel]
    refreshed_two_tower: Future[TwoTowerModel | None]


@dataclass(frozen=True)
class Evaluated:
    """The evaluation of the models fitted before the cut, the chosen blend, and what users get.

    The users who choose the blend are not judged. All are None without judged users.
    """

    evaluation: Evaluation | None
    blend: BlendChoice | None
    served: Served | None


def take_snapshot(context: Context) -> Snapshot:
    """Stage 1."""
    context.run.step("snapshot")
    settings, options, client = context.settings, context.options, context.client
    positions = (
        Archive(settings.archive_url).positions(settings.interactions_topic)
        if options.events is None
        else {}
    )
    if options.items is not None:
        entries: list[Item] = items.read(options.items)
    else:
        entries = catalogue.changes(client).items if client is not None else []
    deleted = DeletedUsers(IdHasher(settings.deletion_salt), {})
    if client is not None and options.events is None:
        with Shards(settings) as shards:
            deleted = deletions.users(shards, IdHasher(settings.deletion_salt))
    return Snapshot(positions, entries, deleted)


def build_training_set(context: Context, snapshot: Snapshot) -> TrainingSet:
    """Stage 2. Raises DatasetError, ArchiveError."""
    settings, path = context.settings, context.options.events
    topic = settings.interactions_topic
    context.run.step(
        "dataset", f"up to {_positions(snapshot.positions)}" if path is None else f"from {path}"
    )
    if path is None:
        archive = Archive(settings.archive_url)
        tables, skipped = events.from_archive(
            archive, topic, snapshot.positions, settings.dedup_window, snapshot.deleted
        )
    else:
        table, skipped = events.from_file(path)
        tables = iter([table])
    source = masked_url(str(path or f"{settings.archive_url}/{topic}"))
    data = dataset.build(tables, settings.use_cases, snapshot.positions, source, skipped)
    try:
        return TrainingSet(data, data.split(settings.holdout_fraction), "")
    except DatasetError as error:
        return TrainingSet(data, None, str(error))


def tune(context: Context, snapshot: Snapshot, training: TrainingSet) -> Context:
    """Stage 3: the context with the hyperparameters to fit with, and how they were found."""
    train = training.split.train if training.split is not None else None
    use_cases = context.settings.use_cases
    return tuning.tune(context, TrainingData(training.data, snapshot.entries, use_cases, train))


def fit(context: Context, snapshot: Snapshot, training: TrainingSet) -> Fitted:
    """Stage 4.

    The comparison needs one core and Python's lock, the solver needs the other cores and not the
    lock: both go on at once.
    """
    data, split = training.data, training.split
    facts = f"{data.events} events, {len(data.users)} users, {len(data.items)} items; {context.als}"
    context.run.step("fit", facts)
    submit, train = context.background.submit, split.train if split is not None else None
    pending = submit(prepare_comparison, context, data, split, training.unsplit, snapshot.entries)
    fits = ALSFits(context, snapshot.positions, snapshot.deleted)
    als = fits.before_cut(data, split)
    comparison = pending.result()
    examples = TrainingData(data, snapshot.entries, context.settings.use_cases, train)
    two_tower = fitting.fit_two_tower(context, examples)
    refreshed_als = submit(fits.refreshed, als, comparison.interactions, split)
    refreshed_two_tower = submit(fitting.refresh_two_tower, context, two_tower, examples)
    return Fitted(als, two_tower, comparison, refreshed_als, refreshed_two_tower)


def evaluate_fitted(context: Context, snapshot: Snapshot, fitted: Fitted) -> Evaluated:
    """Stage 5."""
    context.run.step("evaluate")
    comparison = fitted.comparison
    if comparison.inputs is None or comparison.judged is None:
        log.warning("model_not_evaluated", cause=comparison.unjudged)
        return Evaluated(None, None, None)
    candidate = Bundle.of(
        catalogue=snapshot.entries,
        als=fitted.als,
        two_tower=fitted.two_tower.model if fitted.two_tower is not None else None,
        content=comparison.content,
        popular=comparison.popular_at_cut,
    )
    return evaluate_candidate(candidate, comparison.inputs, comparison.judged, context.console)


def evaluate_candidate(
    candidate: Bundle,
    inputs: Inputs,
    judged: JudgedUsers,
    console: Console,
    metrics: Sequence[str] = (),
) -> Evaluated:
    """The evaluation of `candidate` with the blend that other users than `judged` prefer.

    `metrics`: columns of the printed table (none: a choice of them).
    """
    blend = None
    if candidate.two_tower is not None:
        blend = choice.choose(candidate, inputs, judged.users, judged.seed)
    if blend is not None:
        choice.report(blend, console)
        candidate = replace(candidate, parts={**candidate.parts, "ensemble": blend.blend})
    judgement = router.judge(evaluate.evaluate(candidate, inputs, judged), inputs.settings)
    output.report(judgement.evaluation, console, metrics)
    console.print(served.summary(judgement.served))
    return Evaluated(judgement.evaluation, blend, judgement.served)


def decide(
    context: Context, training: TrainingSet, fitted: Fitted, evaluated: Evaluated
) -> dict[str, Any]:
    """Stage 6: the verdict, for the manifest. Raises GateRefused.

    The evaluation of a refused bundle stays beside the bundles (models/refused.py).
    """
    context.run.step("gate")
    comparison, settings, registry = fitted.comparison, context.settings, context.registry
    live = comparison.live
    if not live.still(registry):  # another bundle was promoted while this one was fitted
        live = gate.ask_live(registry, comparison.inputs, comparison.judged)
    verdict = gate.decide(live, evaluated.evaluation, comparison.unjudged, settings)
    log.info("gate_decided", **verdict)
    context.run.verdict = gate.compared(live, evaluated.evaluation, verdict)
    refused = verdict["decision"] == gate.REFUSED
    if refused and not context.options.force:
        manifest = describe(context, training, fitted, evaluated, verdict)

        def write(folder: Path) -> None:
            save_evaluation(folder, manifest, training, fitted, evaluated)

        refused_bundle.save(context.registry, manifest, write)
        raise GateRefused(
            f"{verdict['cause']}; the live bundle stays. Look at the evaluation above, also in "
            f"{registry.path / refused_bundle.NAME}; --force publishes all the same"
        )
    return verdict | {"forced": refused}


def publish(
    context: Context,
    snapshot: Snapshot,
    training: TrainingSet,
    fitted: Fitted,
    evaluated: Evaluated,
    verdict: Mapping[str, Any],
) -> str:
    """Stage 7: the version that is live now. Raises LeaseLost."""
    context.run.step("publish")
    als, two_tower = fitted.refreshed_als.result(), fitted.refreshed_two_tower.result()
    context.run.check()
    if context.lease is not None:
        context.lease.check()
    data, split, comparison = training.data, training.split, fitted.comparison
    manifest = describe(context, training, fitted, evaluated, verdict)

    def write(folder: Path) -> None:
        files.write_json(folder / CATALOGUE, snapshot.entries)
        comparison.content.save(folder / "content")
        comparison.popular_now.save(folder / "popular")
        matrix = comparison.interactions.weights
        dataset_files.save(data, folder / "dataset", matrix=matrix, sequences=False)
        als.save(folder / "als")
        choice.save(evaluated.blend, folder / "ensemble")
        if evaluated.served is not None:
            evaluated.served.thresholds.save(folder / "router")
        if two_tower is not None:
            two_tower.save(folder / "two_tower")
        if context.tuning is not None:
            files.write_json(folder / tuning_record.FILE, context.tuning)
        if split is not None:  # what the metrics describe, and the next gate compares with
            fitting.without_users(fitted.als).save(folder / gate.JUDGED_ALS)
            if fitted.two_tower is not None:
                fitted.two_tower.model.save(folder / gate.JUDGED_TWO_TOWER)
        save_evaluation(folder / "evaluation", manifest, training, fitted, evaluated)

    version = context.registry.publish(write, manifest)
    if context.client is not None:
        retrains.announce(context.client, version)
    return version


def prune(context: Context, version: str) -> None:
    """Stage 8."""
    context.run.step("prune", f"{version} is live")
    context.registry.prune(context.settings.keep_bundles)


def _positions(positions: Mapping[int, int]) -> str:
    return (
        ", ".join(f"{partition}:{offset}" for partition, offset in positions.items())
        or "nothing archived"
    )
