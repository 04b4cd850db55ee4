"""Summarizes the published versions for the command line and the API."""

from __future__ import annotations

from typing import Any

import msgspec

from core.errors import ModelError
from models.registry import Registry


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One version.

    `metrics`: engine -> metric -> value that its retrain measured. `problem`: why the manifest
    cannot be read; then the other fields have their defaults.
    """

    version: str
    live: bool
    created: str = ""
    events: int | None = None
    parts: list[str] = []
    metrics: dict[str, dict[str, float | None]] = {}
    gate: str = ""
    forced: bool = False
    problem: str | None = None


def summaries(registry: Registry) -> list[Summary]:
    """All versions, newest first. Raises ModelCorrupt when the pointer cannot be read."""
    live = registry.current()
    return [
        _summary(registry, version, version == live) for version in reversed(registry.versions())
    ]


def _summary(registry: Registry, version: str, live: bool) -> Summary:
    try:
        manifest = registry.manifest(version)
    except ModelError as error:
        return Summary(version=version, live=live, problem=str(error))
    metrics: dict[str, Any] = manifest.metrics
    return Summary(
        version=version,
        live=live,
        created=manifest.created,
        events=metrics.get("dataset", {}).get("events"),
        parts=manifest.parts,
        metrics=metrics.get("headline", {}),
        gate=manifest.gate.get("decision", ""),
        forced=bool(manifest.gate.get("forced")),
    )
