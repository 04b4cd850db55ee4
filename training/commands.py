"""What each command of `python -m training` does."""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog
import typer
from rich.console import Console
from rich.table import Table

from core.errors import ModelMissing, StoreUnavailable
from core.settings import Settings
from models.bundle import Bundle
from models.content import ContentModel
from models.registry import Registry
from store import apply, connection, retrain_requests, retrains
from store.archive import Archive
from training import als as als_training
from training import dataset, items, retrain
from training import evaluate as evaluation
from training import events as event_sources
from training import tune as search
from training.popularity import popular

log = structlog.get_logger(__name__)


def make_dataset(settings: Settings, output: Path, events: Path | None, console: Console) -> None:
    """`dataset`."""
    if events is not None:
        table, skipped = event_sources.from_file(events)
        positions: dict[int, int] = {}
    else:
        with connection.connect(settings) as client:
            deleted = apply.deletions(client).times
        archive = Archive(settings.archive_url)
        positions = archive.positions(settings.interactions_topic)
        table, skipped = event_sources.from_archive(archive, settings.interactions_topic, positions, settings.dedup_window, deleted)
    source = str(events or f"{settings.archive_url}/{settings.interactions_topic}")
    made = dataset.build(table, settings.use_cases, positions, source, skipped)
    dataset.save(made, output)
    about = made.summary()
    console.print(f"{output}: {about['events']} events of {about['users']} users with {about['items']} items; left out: {about['skipped']}")


def fit_als(settings: Settings, folder: Path, output: Path, hyperparameters: Path | None, threads: int) -> None:
    """`als`."""
    data = dataset.load(folder)
    chosen = als_training.hyperparameters(settings, hyperparameters)
    retrain.fit(data.matrix(), data, chosen, settings.training_seed, threads).save(output)
    typer.echo(f"{output}: {chosen}")


def evaluate_dataset(
    settings: Settings,
    folder: Path,
    items_path: Path | None,
    hyperparameters: Path | None,
    users: int,
    threads: int,
    output: Path | None,
    console: Console,
) -> None:
    """`evaluate`."""
    data = dataset.load(folder)
    entries = items.read(items_path) if items_path is not None else []
    split = data.split(settings.holdout_fraction)
    content = ContentModel.fit(entries)
    judged = evaluation.judge(data, split, content, settings, users, settings.training_seed)
    chosen = als_training.hyperparameters(settings, hyperparameters)
    fitted = retrain.fit(data.matrix(split.train), data, chosen, settings.training_seed, threads)
    at_cut = popular(data, settings, split.train)
    bundle = Bundle.of(catalogue=entries, als=fitted, content=content, popular=at_cut)
    found = evaluation.evaluate(bundle, entries, at_cut.scores, data, split, judged, settings)
    evaluation.report(found, console)
    if output is not None:
        evaluation.save(found, output, {"als": msgspec.to_builtins(chosen), "dataset": data.sha256})


def run_retrain(settings: Settings, options: retrain.Options, console: Console) -> None:
    """`retrain`."""
    typer.echo(retrain.retrain(settings, options, console))


def request_retrain(settings: Settings, reason: str) -> None:
    """`request`."""
    typer.echo(retrain_requests.send(settings, "command line", reason))


def tune(
    settings: Settings,
    folder: Path,
    output: Path,
    minutes: float,
    trials: int | None,
    negatives: int,
    study: Path,
    threads: int,
    console: Console,
) -> None:
    """`tune`."""
    found = search.search(
        dataset.load(folder),
        settings,
        minutes=minutes,
        trials=trials,
        study_path=study,
        negatives=negatives,
        seed=settings.training_seed,
        threads=threads,
    )
    search.write(found, output)
    search.report(found, console)
    console.print(f"{output}: use it with `python -m training retrain --hyperparameters {output}`")


def list_models(settings: Settings, console: Console) -> None:
    """`models list`."""
    registry = Registry(settings.models_path)
    live = registry.current()
    table = Table()
    for column in ("version", "live", "events", "NDCG@10 routed", "gate"):
        table.add_column(column)
    for version in reversed(registry.versions()):
        manifest = registry.manifest(version)
        score = manifest.metrics.get("headline", {}).get(evaluation.ROUTED, {}).get("ndcg@10")
        forced = ", forced" if manifest.gate.get("forced") else ""
        table.add_row(
            version,
            "live" if version == live else "",
            str(manifest.metrics.get("dataset", {}).get("events", "-")),
            "-" if score is None else f"{score:.4f}",
            f"{manifest.gate.get('decision', '-')}{forced}",
        )
    console.print(table)


def show_model(settings: Settings, version: str | None) -> None:
    """`models show`."""
    registry = Registry(settings.models_path)
    wanted = version or registry.current()
    if wanted is None:
        raise ModelMissing(f"no bundle is published in {settings.models_path} yet; run `python -m training retrain`")
    typer.echo(msgspec.json.format(msgspec.json.encode(registry.manifest(wanted)), indent=2).decode())


def diff_models(settings: Settings, a: str, b: str, console: Console) -> None:
    """`models diff`."""
    table = Table("what", a, b)
    for name, (left, right) in Registry(settings.models_path).diff(a, b).items():
        table.add_row(name, _short(left), _short(right))
    console.print(table)


def promote_model(settings: Settings, version: str) -> None:
    """`models promote`."""
    Registry(settings.models_path).promote(version)
    _announce(settings, version)


def rollback_model(settings: Settings) -> None:
    """`models rollback`."""
    _announce(settings, Registry(settings.models_path).rollback())


def _announce(settings: Settings, version: str) -> None:
    """The pointer file is what readers follow; the note in Redis is for people, so a promotion does not fail without it."""
    typer.echo(f"{version} is live")
    try:
        with connection.connect(settings) as client:
            retrains.announce(client, version)
    except StoreUnavailable as error:
        log.warning("model:current in Redis still names the version before", error=str(error))


def _short(value: object) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= 40 else text[:37] + "..."
