"""Writes the evaluation of a bundle as one HTML page.

The page is `evaluation/report.html`, beside the metrics.json that it is made from.

The page is self-contained: its style, its scripts (Plotly's and `draw.js`) and its numbers are in
it, and it requests nothing, so it can be mailed, printed and archived. Without scripts it shows the
numbers of its charts in words. It depends on metrics.json and the manifest alone, so the same input
makes the same page.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from models import files
from models.router import served
from training.report import sections
from training.report.metrics_file import Metrics

METRICS, PAGE = "metrics.json", "report.html"
_HERE = Path(__file__).parent


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the page beside the metrics.json in `folder`; `manifest` as for `page`.

    Raises ModelMissing, ModelCorrupt.
    """
    (folder / PAGE).write_text(page(read(folder), manifest), "utf-8")


def read(folder: Path) -> Metrics:
    """The metrics.json in `folder`. Raises ModelMissing, ModelCorrupt."""
    return files.read_json(folder / METRICS, Metrics)


def page(metrics: Metrics, manifest: Mapping[str, Any]) -> str:
    """The HTML of the page.

    `manifest`: of the bundle, possibly incomplete; empty for an evaluation without a bundle.
    """
    version = manifest.get("version")
    return _template().render(
        title=f"Evaluation of {version}" if version else "Evaluation",
        summary=served.summary(metrics.served) if metrics.served is not None else None,
        introduction=_introduction(metrics),
        in_short=sections.in_short(metrics, manifest.get("gate", {})),
        by_segment=sections.by_segment(metrics),
        columns=sections.main_columns(),
        segments=sections.main_rows(metrics),
        meanings=sections.MEANINGS,
        by_cutoff=sections.by_cutoff(metrics),
        beside_variety=sections.beside_variety(metrics),
        blends=sections.blends(metrics.blends) if metrics.blends and metrics.blends.tried else None,
        training=sections.training(metrics.two_tower) if metrics.two_tower else None,
        facts=_facts(metrics, manifest),
    )


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(_HERE)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    scripts = [get_plotlyjs(), _own("draw.js")]
    environment.globals |= {
        "style": _own("page.css"),
        "scripts": scripts,
        "hashes": " ".join(f"'{_digest(script)}'" for script in scripts),
    }
    return environment.get_template("page.html.jinja")


def _own(name: str) -> str:
    return (_HERE / name).read_text("utf-8")


def _digest(script: str) -> str:
    """The hash by which a Content-Security-Policy allows a script in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _introduction(metrics: Metrics) -> str:
    return (
        f"{metrics.users:,} of the {metrics.users_with_new_items:,} users who interacted with new "
        f"items after {_day(metrics.cut)} got answers as of that time: from each engine, and as "
        "the router serves them (routed). The items that they interacted with afterwards are the "
        "right answers."
    )


def _facts(metrics: Metrics, manifest: Mapping[str, Any]) -> dict[str, str]:
    settings, published = manifest.get("settings", {}), manifest.get("metrics", {})
    data = published.get("dataset", {})
    facts = {
        "published": manifest.get("created"),
        "judged": published.get("describes") or metrics.describes,
        "events": ", ".join(
            f"{data[name]:,} {name}"
            for name in ("events", "users", "items")
            if isinstance(data.get(name), int)
        ),
        "cut": _day(metrics.cut),
        "seed of the draw": metrics.seed,
        "dataset": metrics.dataset[:16],
        **{
            name: _pairs(settings.get(name))
            for name in ("als", "two_tower", "ensemble", "event_weights")
        },
        **_searches(settings.get("tuning") or {}),
        "seconds": _pairs(published.get("seconds")),
        "libraries": _pairs(manifest.get("libraries")),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _searches(tuning: Mapping[str, Any]) -> dict[str, str]:
    """Whether the retrain searched hyperparameters and why, and the last search of each model."""
    facts = {"search": f"{tuning['decision']}: {tuning['reason']}"} if tuning else {}
    for part in ("als", "two_tower"):
        if part in tuning:
            former = _pairs(tuning[part]["former"])
            facts[f"search for {part}"] = f"{tuning[part]['verdict']}; the former choice: {former}"
    return facts


def _pairs(settings: Any) -> str:
    return ", ".join(_flat(settings)) if isinstance(settings, Mapping) else ""


def _flat(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield f"{name}: " + ", ".join(_flat(value))
        else:
            yield f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}"


def _day(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds, UTC)
    return f"{when.day} {when:%B %Y, %H:%M} UTC"
