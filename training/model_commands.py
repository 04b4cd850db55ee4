"""Runs the commands of `python -m training models`; `model_app` declares their options."""

from __future__ import annotations

import msgspec
import structlog
import typer
from rich.console import Console

from core.errors import ModelMissing, StoreUnavailable
from core.process.tables import Column, Table, print_json
from core.settings import Settings
from models import refused
from models.bundle import Manifest
from models.listing import ModelSummary, summaries
from models.registry import Registry
from models.router import served
from store.state import connection, retrains
from training.evaluation import evaluate as evaluation

log = structlog.get_logger(__name__)


def list_models(settings: Settings, as_json: bool, console: Console) -> None:
    """Run `models list`."""
    bundle_summaries = summaries(Registry(settings.models_path), settings.router)
    if as_json:
        return print_json(bundle_summaries)
    table = Table(
        Column("version"),
        Column("live"),
        Column("events", 1, number=True),
        *(
            Column(f"NDCG@10 {engine}", 0 if engine == evaluation.ROUTED else 3, number=True)
            for engine in evaluation.ENGINES
        ),
        Column("recall@10 routed", 2, number=True),
        Column("gate", wraps=True),
    )
    for summary in bundle_summaries:
        if summary.problem is not None:
            empty = [None] * (len(evaluation.ENGINES) + 2)
            table.add(summary.version, "live" if summary.live else "", *empty, summary.problem)
            continue
        scores = [_score(summary, engine, "ndcg@10") for engine in evaluation.ENGINES]
        table.add(
            summary.version,
            "live" if summary.live else "",
            None if summary.events is None else f"{summary.events:,}",
            *scores,
            _score(summary, evaluation.ROUTED, "recall@10"),
            f"{summary.gate or '-'}{', forced' if summary.forced else ''}",
        )
    table.show(console)
    return None


def show_model(settings: Settings, version: str | None) -> None:
    """Run `models show`: print the manifest of `version` as JSON, after what users get from it."""
    manifest = published_manifest(settings, version)
    summary = served.summary(served.of_manifest(manifest.metrics), settings.router)
    print_json({"summary": summary, **msgspec.to_builtins(manifest)})


def diff_models(settings: Settings, a: str, b: str, as_json: bool, console: Console) -> None:
    """Run `models diff`: print what differs between two manifests."""
    differences = Registry(settings.models_path).diff(a, b)
    if as_json:
        return print_json(differences)
    table = Table(Column("what"), Column(a, wraps=True), Column(b, wraps=True))
    for name, (left, right) in differences.items():
        table.add(name, left, right)
    table.show(console)
    return None


def promote_model(settings: Settings, version: str) -> None:
    """Run `models promote`."""
    Registry(settings.models_path).promote(version)
    _announce(settings, version)


def rollback_model(settings: Settings) -> None:
    """Run `models rollback`."""
    _announce(settings, Registry(settings.models_path).rollback())


def published_manifest(settings: Settings, version: str | None) -> Manifest:
    """The manifest of `version`, or of the live bundle; "refused": of the last refused one.

    Raises ModelMissing.
    """
    registry = Registry(settings.models_path)
    if version == refused.NAME:
        return refused.read(registry)
    version = version or registry.current()
    if version is None:
        raise ModelMissing(
            f"no bundle is published in {settings.models_path} yet; run `python -m training "
            f"retrain`"
        )
    return registry.manifest(version)


def _announce(settings: Settings, version: str) -> None:
    """Print and record that `version` is live.

    Readers follow the pointer file, so an unavailable Redis does not fail the command.
    """
    typer.echo(f"{version} is live")
    try:
        with connection.connect(settings) as client:
            retrains.announce(client, version)
    except StoreUnavailable as error:
        log.warning("live_version_not_recorded", error=str(error))


def _score(summary: ModelSummary, engine: str, metric: str) -> str | None:
    value = summary.metrics.get(engine, {}).get(metric)
    return None if value is None else f"{value:.4f}"
