"""Runs the commands of `python -m training`; `__main__` declares their options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
import typer
from rich.console import Console

from core.deletions import IdHasher
from core.process.tables import print_json
from core.redaction import masked_url
from core.settings import Settings
from models import bundle as bundles
from models.bundle import Bundle
from models.content import ContentModel
from store import start
from store.archive.archive import Archive
from store.log import retrain_requests
from store.state.apply import deletions
from store.state.apply.deletions import DeletedUsers
from store.state.shards import Shards
from training import als as als_training
from training.blend import choice as blend_choice
from training.data import dataset, dataset_files, items
from training.data import events as event_sources
from training.data.popularity import popular
from training.data.table_files import Source
from training.evaluation import evaluate as evaluation
from training.evaluation import experiments, population
from training.evaluation import output as evaluation_output
from training.job import fitting, retrain, stages
from training.job.manifest import evaluation_facts
from training.model_commands import published_manifest
from training.report import page as report
from training.spark import events as spark_events
from training.spark import fit as spark_fit
from training.spark import session as spark_session
from training.tuning import command as tuning
from training.tuning.options import Part, TuneOptions
from training.two_tower import command as two_tower_command
from training.two_tower import hyperparameters as two_tower_training
from training.two_tower.fit_types import FitOptions, TrainingData

log = structlog.get_logger(__name__)


def make_dataset(settings: Settings, output: Path, events: Source | None, console: Console) -> None:
    """Run `dataset`: write the dataset of the archive, or of the file `events`, into `output`."""
    if events is not None:
        table, skipped = event_sources.from_file(events)
        tables = iter([table])
        positions: dict[int, int] = {}
    else:
        deleted = _deleted_users(settings)
        archive = Archive(settings.archive_url)
        positions = archive.positions(settings.interactions_topic)
        tables, skipped = event_sources.from_archive(
            archive, settings.interactions_topic, positions, settings.dedup_window, deleted
        )
    source = masked_url(str(events or f"{settings.archive_url}/{settings.interactions_topic}"))
    data = dataset.build(tables, settings.use_cases, positions, source, skipped)
    dataset_files.save(data, output)
    summary = data.summary()
    counts = f"{summary['events']} events of {summary['users']} users with {summary['items']} items"
    console.print(f"{output}: {counts}; left out: {summary['skipped']}")


def fit_als(
    settings: Settings, folder: Path, output: Path, hyperparameters: Path | None, threads: int
) -> None:
    """Run `als`: fit ALS on the dataset in `folder` and write the model into `output`."""
    data = dataset_files.load(folder)
    als_hyperparameters = als_training.hyperparameters(settings, hyperparameters)
    fitting.fit_als(data.interactions(), als_hyperparameters, settings.training_seed, threads).save(
        output
    )
    typer.echo(f"{output}: {als_hyperparameters}")


def fit_als_by_spark(
    settings: Settings, table: Source | None, output: Path, hyperparameters: Path | None
) -> None:
    """Run `als --engine spark`: fit ALS on the archive, or on `table`, and write it."""
    als_hyperparameters = als_training.hyperparameters(settings, hyperparameters)
    source: spark_events.Events
    if table is not None:
        source = spark_events.TableEvents(table)
    else:
        deleted = _deleted_users(settings)
        positions = Archive(settings.archive_url).positions(settings.interactions_topic)
        source = spark_events.of_archive(settings, positions, deleted)
    training = spark_fit.TrainingEvents(source, settings.use_cases)
    with spark_session.cluster(settings) as cluster:
        fitted = spark_fit.fit(cluster, training, als_hyperparameters, settings.training_seed)
    fitted.model.save(output)
    typer.echo(
        f"{output}: {als_hyperparameters}; {fitted.pairs} pairs of a user and an item; left out: "
        f"{fitted.skipped}"
    )


def _deleted_users(settings: Settings) -> DeletedUsers:
    with Shards(settings) as shards:
        return deletions.users(shards, IdHasher(settings.deletion_salt))


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of `evaluate`.

    `dataset`: folder that `dataset` wrote. `items`: file of the catalogue. `users`: the most that
    are judged. `threads` 0: one a core. `output`: folder for the results. `metrics`: columns of the
    table (none: a choice of them).
    """

    dataset: Path
    items: Source | None = None
    hyperparameters: Path | None = None
    users: int = 250
    threads: int = 0
    output: Path | None = None
    metrics: Sequence[str] = ()


def evaluate_dataset(
    settings: Settings, options: EvaluationOptions, console: Console, as_json: bool = False
) -> None:
    """Run `evaluate`: fit on the events before the cut, print the evaluation, and write it into
    `options.output`.
    """
    evaluation_output.check_metrics(options.metrics)
    data = dataset_files.load(options.dataset)
    entries = items.read(options.items) if options.items is not None else []
    split, seed = data.split(settings.holdout_fraction), settings.training_seed
    content = ContentModel.fit(entries)
    sample = population.Sample(options.users, seed, blend_choice.reserve(settings))
    judged = population.draw(data, split, content, settings, sample)
    als_hyperparameters = als_training.hyperparameters(settings, options.hyperparameters)
    two_tower_hyperparameters = two_tower_training.hyperparameters(
        settings, options.hyperparameters
    )
    als = fitting.fit_als(
        data.interactions(split.train), als_hyperparameters, seed, options.threads
    )
    two_tower = two_tower_command.fit_if_available(
        settings,
        TrainingData(data, entries, settings.use_cases, split.train),
        two_tower_hyperparameters,
        FitOptions(options.threads, settings.two_tower_seconds),
    )
    at_cut = popular(data, settings, split.train)
    bundle = Bundle.of(
        catalogue=entries,
        als=als,
        two_tower=two_tower.model if two_tower is not None else None,
        content=content,
        popular=at_cut,
    )
    evaluated = stages.evaluate_candidate(
        bundle,
        evaluation.Inputs(entries, at_cut.scores, data, split, settings),
        judged,
        console,
        options.metrics,
    )
    result = evaluated.evaluation
    if result is None:
        return
    if as_json:
        print_json(result.rows)
    if options.output is None:
        return
    about = {
        "als": msgspec.to_builtins(als_hyperparameters),
        **evaluation_facts(data, two_tower, evaluated),
    }
    evaluation_output.save(result, options.output, about)
    two_tower_facts = two_tower.facts if two_tower is not None else None
    report.write(options.output, {"settings": {"als": about["als"], "two_tower": two_tower_facts}})
    console.print(f"{options.output / report.PAGE} shows the results")


def run_retrain(settings: Settings, options: retrain.Options, console: Console) -> None:
    """Run `retrain` and print the version that is live then."""
    start.announce(settings, "retrain")
    typer.echo(retrain.retrain(settings, options, console))


def request_retrain(settings: Settings, reason: str) -> None:
    """Run `request`: send a retrain request and print its topic:partition:offset."""
    typer.echo(retrain_requests.send(settings, "command line", reason))


def tune(
    settings: Settings,
    part: Part,
    folder: Path,
    items_file: Source | None,
    options: TuneOptions,
    console: Console,
) -> None:
    """Run `tune` on the dataset in `folder`."""
    entries = items.read(items_file) if items_file is not None else []
    tuning.tune(part, dataset_files.load(folder), entries, settings, options, console)
    if options.output.exists():
        console.print(
            f"{options.output}: use it with `python -m training retrain --hyperparameters "
            f"{options.output}`"
        )


def report_experiments(
    settings: Settings, as_json: bool, detect: float, forget: str | None, console: Console
) -> None:
    """Run `experiments`: print the reports, or remove the numbers of the tag `forget`."""
    if forget is not None:
        experiments.forget(settings, forget)
        typer.echo(f"{forget}: its numbers are removed")
        return
    reports = experiments.reports(settings, detect)
    if as_json:
        print_json(reports)
    else:
        experiments.show(reports, console)


def write_report(settings: Settings, version: str | None, output: Path) -> None:
    """Run `report`: write the HTML page of `version` to `output`."""
    manifest = published_manifest(settings, version)
    folder = settings.models_path / manifest.version
    bundles.verify(folder, manifest, f"evaluation/{report.METRICS}")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        report.page(report.read(folder / "evaluation"), msgspec.to_builtins(manifest)), "utf-8"
    )
    typer.echo(output)
