"""Summarizes the published versions for the command line and the API."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from core.errors import ModelError, ModelMissing
from core.settings.router import RouterMode
from models.registry import Registry
from models.router import served

SUMMARY = (
    "Warm users get NDCG@10 .081, 12% below als alone (.092 [.085, .099]). ROUTER=auto (1 and 3 "
    "instead of 5 and 20) would give warm users .091."
)

REPORT = "evaluation/report.html"
"""File of a bundle: its evaluation as a page."""


class ModelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One published version.

    When the manifest cannot be read, `problem` says why, and the other fields have their defaults.
    """

    version: Annotated[str, Meta(examples=["2026-11-22T10-00-00Z"])]
    live: Annotated[
        bool,
        Meta(description="whether the pointer names it; every process serves it within REFRESH_S"),
    ]
    created: Annotated[str, Meta(examples=["2026-11-22T10:00:00+00:00"])] = ""
    events: Annotated[int | None, Meta(description="number of events it was trained on")] = None
    parts: Annotated[list[str], Meta(examples=[["als", "content", "popular"]])] = []
    metrics: Annotated[
        dict[str, dict[str, float | None]],
        Meta(
            description="by engine, as its retrain measured them",
            examples=[{"als": {"ndcg@10": 0.21, "recall@10": 0.12}}],
        ),
    ] = {}
    gate: Annotated[
        str,
        Meta(
            description="accepted or refused, compared with the version that was live then",
            examples=["accepted"],
        ),
    ] = ""
    summary: Annotated[
        str,
        Meta(
            description=(
                "what users get beside the best engine by segment, and the one setting that "
                "changes it"
            ),
            examples=[SUMMARY],
        ),
    ] = ""
    forced: Annotated[bool, Meta(description="published although the gate had refused it")] = False
    problem: Annotated[str | None, Meta(description="why the manifest cannot be read")] = None


def summaries(registry: Registry, router: RouterMode) -> list[ModelSummary]:
    """All versions, newest first. `router`: ROUTER, for their summaries.

    Raises ModelCorrupt when the pointer cannot be read.
    """
    live = registry.current()
    return [
        _summary(registry, version, version == live, router)
        for version in reversed(registry.versions())
    ]


def report(registry: Registry, version: str) -> bytes:
    """The evaluation of a version as an HTML page. Raises ModelMissing, ModelCorrupt."""
    registry.manifest(version)  # so that only a version's own files are read
    try:
        return (registry.path / version / REPORT).read_bytes()
    except FileNotFoundError:
        raise ModelMissing(f"{version} was published without an evaluation report") from None


def _summary(registry: Registry, version: str, live: bool, router: RouterMode) -> ModelSummary:
    try:
        manifest = registry.manifest(version)
    except ModelError as error:
        return ModelSummary(version=version, live=live, problem=str(error))
    metrics: dict[str, Any] = manifest.metrics
    return ModelSummary(
        version=version,
        live=live,
        created=manifest.created,
        events=metrics.get("dataset", {}).get("events"),
        parts=manifest.parts,
        metrics=metrics.get("headline", {}),
        gate=manifest.gate.get("decision", ""),
        summary=served.summary(served.of_manifest(metrics), router),
        forced=bool(manifest.gate.get("forced")),
    )
