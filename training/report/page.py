"""Writes the evaluation of a bundle as one HTML page: `evaluation/report.html`, beside the
metrics.json that it is made from.

The page is self-contained: no script, no font and no request, so it can be mailed, printed and
archived. It depends on metrics.json and the manifest alone, so the same input makes the same page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models import files
from training.evaluation.evaluate import DIVERSITY_AT, ENGINES, ROUTED
from training.evaluation.metrics import CUTOFFS
from training.report.charts import Estimate, Series, curves, intervals, labelled
from training.report.markup import Markup, element, joined
from training.report.numbers import Blends, Epoch, Metrics

METRICS, PAGE = "metrics.json", "report.html"
_MAIN = "ndcg@10"
_RANKING = {
    "ndcg@10": "NDCG@10",
    "recall@10": "Recall@10",
    "precision@10": "Precision@10",
    "map@10": "MAP@10",
}
_VARIETY = {
    f"{name.lower()}@{DIVERSITY_AT}": f"{name}@{DIVERSITY_AT}"
    for name in ("Diversity", "Coverage", "Novelty")
}
_DIGITS = {f"novelty@{DIVERSITY_AT}": 2, **dict.fromkeys(_RANKING, 4)}
_SERVED = {"hot": "ensemble"}
"""Segment -> the engine that the router gives it, where that is not a single engine."""
_LEAST_USERS = 20
"""Users of a segment from which on a sentence compares engines: with fewer, single users decide."""
_MEANINGS = {
    "NDCG": "hits count more the higher they stand; 1 is the best possible order",
    "Recall": "share of what the user took after the cut that the list holds",
    "Precision": "share of the list that the user took",
    "MAP": "precision at each hit, averaged",
    "Diversity": (
        "how unlike two items of one list are: 1 minus the mean cosine of what the catalogue "
        "says about them"
    ),
    "Coverage": "share of the catalogue that somebody is shown",
    "Novelty": "how little known the shown items are, in bits: 1 more means half as many users",
}
_STYLE = Path(__file__).with_suffix(".css")


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the page beside the metrics.json in `folder`; `manifest` as for `page`.

    Raises ModelMissing, ModelCorrupt.
    """
    (folder / PAGE).write_text(page(read(folder), manifest), "utf-8")


def read(folder: Path) -> Metrics:
    """The metrics.json in `folder`. Raises ModelMissing, ModelCorrupt."""
    return files.read_json(folder / METRICS, Metrics)


def page(found: Metrics, manifest: Mapping[str, Any]) -> str:
    """The HTML of the page.

    `manifest`: of the bundle, possibly incomplete; empty for an evaluation without a bundle.
    """
    version = manifest.get("version")
    title = f"Evaluation of {version}" if version else "Evaluation"
    body = joined(
        element("header", element("h1", title), element("p", _introduction(found), class_="lede")),
        _section("In short", _in_short(found, manifest.get("gate", {}))),
        _section("NDCG@10 by segment", _by_segment(found)),
        _section("By engine and segment", _main_table(found)),
        _section("As the list grows", _by_cutoff(found)),
        _section("Accuracy beside variety", _beside_variety(found)),
        _section("Blends that were tried", _blends(found.blends))
        if found.blends is not None and found.blends.tried
        else "",
        _section("Two-Tower's training", _training(found.two_tower)) if found.two_tower else "",
        _section("How it came about", _facts(found, manifest)),
    )
    head = joined(
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
    return (
        f"<!doctype html>\n<html "
        f'lang="en"><head>{head}</head><body><main>{body}</main></body></html>\n'
    )


def _introduction(found: Metrics) -> str:
    return (
        f"{found.users:,} of the {found.users_with_new_items:,} users who took something "
        f"new after {_day(found.cut)} were answered as they "
        "stood at that moment: by each engine, and as they are really served (routed). "
        "What they took afterwards is what the answers are "
        "judged by."
    )


def _in_short(found: Metrics, gate: Mapping[str, Any]) -> Markup:
    sentences = []
    for segment, users in found.segments.items():
        single = [
            each
            for each in found.of_engines(segment, _MAIN)
            if each.name not in (ROUTED, "ensemble")
        ]
        if users < _LEAST_USERS or not single:
            sentences.append(
                f"{segment.capitalize()} users ({users:,}): too few to compare engines by."
            )
            continue
        best = max(single, key=lambda each: each.mean)
        served = found.of(segment, _SERVED.get(segment, ROUTED), _MAIN) or found.of(
            segment, ROUTED, _MAIN
        )
        text = (
            f"{segment.capitalize()} users ({users:,}): the best single engine is {best.name}, "
            f"NDCG@10 {best.mean:.4f}"
        )
        if served is not None and best.mean > 0:
            text += (
                f"; {'what they get' if served.name == ROUTED else f'the {served.name}'} "
                f"reaches {served.mean:.4f}"
            )
            text += f", {served.mean / best.mean - 1.0:+.1%}".replace("-", "−")
            text += ", each within the other's interval" if _near(best, served) else ""
        sentences.append(f"{text}.")
    if gate.get("cause"):
        sentences.append(f"The gate {gate.get('decision', '')} it: {gate['cause']}.")
    return element("ul", *(element("li", each) for each in sentences))


def _by_segment(found: Metrics) -> Markup:
    shown = {segment: found.of_engines(segment, _MAIN) for segment in found.segments}
    highest = (
        max(
            (each.high or each.mean for estimates in shown.values() for each in estimates),
            default=0.0,
        )
        or 1.0
    )
    charts = [
        intervals(
            f"{segment.capitalize()}: {_users(found.segments[segment])}",
            estimates,
            highest,
            ENGINES,
        )
        for segment, estimates in shown.items()
        if estimates
    ]
    text = (
        "Lines are 95% bootstrap intervals over users; all segments have one scale. Where "
        "intervals overlap widely, it may be chance."
    )
    return _figure(charts, text)


def _main_table(found: Metrics) -> Markup:
    columns = {**_RANKING, **_VARIETY}
    bodies = []
    for segment, users in found.segments.items():
        name = element(
            "th",
            f"{segment} ",
            element("span", _users(users)),
            scope="rowgroup",
            colspan=len(columns) + 1,
        )
        best = {
            metric: max((each.mean for each in found.of_engines(segment, metric)), default=0.0)
            for metric in _RANKING
        }
        lines = [
            element(
                "tr",
                element(
                    "th",
                    element("i", class_=f"dot {engine}", aria_hidden="true"),
                    engine,
                    scope="row",
                ),
                *(
                    _cell(
                        found.of(segment, engine, metric), _DIGITS.get(metric, 3), best.get(metric)
                    )
                    for metric in columns
                ),
            )
            for engine in found.engines
        ]
        bodies.append(element("tbody", element("tr", name, class_="group"), *lines))
    explanation = (
        "Means over users, 95% bootstrap intervals below them; the most accurate of a segment "
        "is bold."
    )
    head = element(
        "thead",
        element(
            "tr", *(element("th", label, scope="col") for label in ("engine", *columns.values()))
        ),
    )
    table = element("table", element("caption", element("span", explanation)), head, *bodies)
    meanings = [
        joined(element("dt", name), element("dd", text)) for name, text in _MEANINGS.items()
    ]
    return joined(
        _scrolling(table, "Metrics by engine and segment"),
        _more("What the columns mean", element("dl", *meanings)),
    )


def _by_cutoff(found: Metrics) -> Markup:
    charts, lines = [], []
    for metric, name in (("ndcg", "NDCG"), ("recall", "Recall")):
        drawn = []
        for engine in found.engines:
            numbers = {
                k: each.mean
                for k in CUTOFFS
                if (each := found.of("all", engine, f"{metric}@{k}")) is not None
            }
            if len(numbers) == len(CUTOFFS):
                drawn.append(Series(engine, [(float(k), mean) for k, mean in numbers.items()]))
                lines.append([name, engine, *(f"{mean:.4f}" for mean in numbers.values())])
        charts.append(
            curves(f"{name}, all users", drawn, "items in the list", ENGINES, CUTOFFS)
            if drawn
            else Markup()
        )
    return _figure(charts, numbers=_table(["metric", "engine", *map(str, CUTOFFS)], lines, 2))


def _beside_variety(found: Metrics) -> Markup:
    charts = []
    for metric, name in list(_VARIETY.items())[:2]:
        points = [
            (up.name, (across.mean, up.mean))
            for up in found.of_engines("all", _MAIN)
            if (across := found.of("all", up.name, metric)) is not None
        ]
        charts.append(
            labelled(f"NDCG@10 by {name.lower()}, all users", points, name, ENGINES)
            if points
            else Markup()
        )
    return _figure(charts, "Further up is more accurate, further right is more varied.")


def _blends(blends: Blends) -> Markup:
    best = blends.tried[0]
    parts = list(dict.fromkeys(name for blend in blends.tried for name in blend.weights))
    drawn = []
    for part in parts:
        reached: dict[float, float] = {}
        for blend in (each for each in blends.tried if each.fusion != "learned"):
            weight = round(blend.weights.get(part, 0.0), 3)
            reached[weight] = max(reached.get(weight, 0.0), blend.ndcg)
        points = sorted(reached.items())
        drawn.append(Series(part, points, _highest([height for _, height in points])))
    weights = " + ".join(
        f"{weight:.2g} {name}" for name, weight in best.weights.items() if weight > 0
    )
    how = (
        "in the mean of those who chose, with learned weights"
        if best.fusion == "learned"
        else f"fused by {best.fusion}"
    )
    lines = [
        [
            *(f"{blend.weights.get(name, 0.0):.2g}" for name in parts),
            blend.fusion,
            f"{blend.ndcg:.4f}",
        ]
        for blend in blends.tried
    ]
    return joined(
        element(
            "p",
            f"The ensemble serves {weights}, {how}: NDCG@10 {best.ndcg:.4f} for those who chose.",
        ),
        _figure(
            [
                curves(
                    "Best NDCG@10 by an engine's weight",
                    drawn,
                    "weight in the blend",
                    ENGINES,
                    from_zero=False,
                )
            ],
            (
                f"What the best mixture reaches in which an engine has this weight. "
                f"{blends.users:,} users chose; none is judged above."
            ),
            _table([*parts, "fusion", "NDCG@10"], lines, 0),
        ),
    )


def _training(epochs: Sequence[Epoch]) -> Markup:
    loss = Series("two_tower", [(float(each.epoch), each.loss) for each in epochs])
    ticks = range(1, len(epochs) + 1, 1 + len(epochs) // 8)
    charts = [curves("Loss", [loss], "epoch", ENGINES, ticks, from_zero=False)]
    judged = [(float(each.epoch), each.ndcg) for each in epochs if each.ndcg is not None]
    if judged:
        series = Series("two_tower", judged, _highest([ndcg for _, ndcg in judged]))
        charts.append(curves("NDCG@10 of users' last items", [series], "epoch", ENGINES, ticks))
    text = (
        "The marked epoch was kept."
        if judged
        else "Nobody was held out to judge by, so the last epoch was kept."
    )
    lines = [
        [str(each.epoch), f"{each.loss:.4f}", "–" if each.ndcg is None else f"{each.ndcg:.4f}"]
        for each in epochs
    ]
    return _figure(charts, text, _table(["epoch", "loss", "NDCG@10"], lines, 0))


def _facts(found: Metrics, manifest: Mapping[str, Any]) -> Markup:
    settings, metrics = manifest.get("settings", {}), manifest.get("metrics", {})
    data = metrics.get("dataset", {})
    facts = {
        "published": manifest.get("created"),
        "judged": metrics.get("describes") or found.describes,
        "events": ", ".join(
            f"{data[name]:,} {name}"
            for name in ("events", "users", "items")
            if isinstance(data.get(name), int)
        ),
        "cut": _day(found.cut),
        "seed of the draw": found.seed,
        "dataset": found.dataset[:16],
        **{
            name: _pairs(settings.get(name))
            for name in ("als", "two_tower", "ensemble", "event_weights")
        },
        "seconds": _pairs(metrics.get("seconds")),
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


def _section(title: str, content: Markup) -> Markup:
    name = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")
    return element("section", element("h2", title, id=name), content, aria_labelledby=name)


def _figure(charts: Sequence[Markup], caption: str = "", numbers: Markup | None = None) -> Markup:
    legend = element("figcaption", caption) if caption else ""
    return element(
        "figure",
        element("div", *charts, class_="charts"),
        legend,
        _more("The numbers", numbers) if numbers is not None else "",
    )


def _more(title: str, content: Markup) -> Markup:
    return element("details", element("summary", title), content)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], words: int) -> Markup:
    """A table of numbers. `words`: how many columns, from the left, are text."""
    rows = [
        element(
            "tr",
            *(
                element("td", each, class_="text" if at < words else None)
                for at, each in enumerate(line)
            ),
        )
        for line in lines
    ]
    top = element("thead", element("tr", *(element("th", each, scope="col") for each in head)))
    return _scrolling(element("table", top, element("tbody", *rows), class_="plain"), "The numbers")


def _scrolling(table: Markup, label: str) -> Markup:
    return element("div", table, class_="scrolling", role="region", aria_label=label, tabindex=0)


def _cell(found: Estimate | None, digits: int, best: float | None) -> Markup:
    if found is None:
        return element("td", "–")
    number = element(
        "b" if best is not None and found.mean >= best > 0 else "span", f"{found.mean:.{digits}f}"
    )
    known = found.low is not None and found.high is not None
    return element(
        "td",
        number,
        element("small", f"{found.low:.{digits}f}–{found.high:.{digits}f}") if known else "",
    )


def _near(one: Estimate, other: Estimate) -> bool:
    """Whether each mean lies within the other's interval."""
    return all(
        a.low is not None and a.high is not None and a.low <= b.mean <= a.high
        for a, b in ((one, other), (other, one))
    )


def _users(number: int) -> str:
    return f"{number:,} user{'' if number == 1 else 's'}"


def _highest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda at: values[at])


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
