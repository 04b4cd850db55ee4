"""Writes the evaluation of a bundle as one HTML page.

The page is `evaluation/report.html`, beside the metrics.json that it is made from.

The page is self-contained: no script, no font and no request, so it can be mailed, printed and
archived. It depends on metrics.json and the manifest alone, so the same input makes the same page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models import files
from training.report import sections
from training.report.layout import section
from training.report.markup import Markup, element, joined
from training.report.metrics_file import Metrics

METRICS, PAGE = "metrics.json", "report.html"
_STYLE = Path(__file__).with_suffix(".css")


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
    title = f"Evaluation of {version}" if version else "Evaluation"
    introduction = element("p", _introduction(metrics), class_="lede")
    body = [
        element("header", element("h1", title), introduction),
        section("In short", sections.in_short(metrics, manifest.get("gate", {}))),
        section("NDCG@10 by segment", sections.by_segment(metrics)),
        section("By engine and segment", sections.main_table(metrics)),
        section("By length of the list", sections.by_cutoff(metrics)),
        section("Accuracy and variety", sections.beside_variety(metrics)),
    ]
    if metrics.blends is not None and metrics.blends.tried:
        body.append(section("Blends that were tried", sections.blends(metrics.blends)))
    if metrics.two_tower:
        body.append(section("Two-Tower's training", sections.training(metrics.two_tower)))
    body.append(section("How the models were made", _facts(metrics, manifest)))
    return (
        f'<!doctype html>\n<html lang="en"><head>{_head(title)}</head>'
        f"<body><main>{joined(*body)}</main></body></html>\n"
    )


def _head(title: str) -> Markup:
    return joined(
        Markup(
            '<meta charset="utf-8"><meta name="viewport" content="width=device-width, '
            'initial-scale=1">'
        ),
        Markup(
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'\">"
        ),
        Markup('<meta name="color-scheme" content="light dark">'),
        element("title", f"{title} · Eddyline"),
        element("style", Markup(_STYLE.read_text("utf-8"))),
    )


def _introduction(metrics: Metrics) -> str:
    return (
        f"{metrics.users:,} of the {metrics.users_with_new_items:,} users who interacted with new "
        f"items after {_day(metrics.cut)} got answers as of that time: from each engine, and as "
        "the router serves them (routed). The items that they interacted with afterwards are the "
        "right answers."
    )


def _facts(metrics: Metrics, manifest: Mapping[str, Any]) -> Markup:
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
        "seconds": _pairs(published.get("seconds")),
        "libraries": _pairs(manifest.get("libraries")),
    }
    entries = [
        joined(element("dt", name), element("dd", str(value)))
        for name, value in facts.items()
        if value not in (None, "")
    ]
    note = (
        "Every number, at every length of the list, is in metrics.csv and metrics.json beside "
        "this page."
    )
    return joined(element("dl", *entries), element("p", note, class_="note"))


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
