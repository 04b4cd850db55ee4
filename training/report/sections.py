"""Makes what the sections of the page show: sentences, tables and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.router.served import LEAST_USERS
from training.evaluation.evaluate import DIVERSITY_AT, ROUTED
from training.evaluation.metrics import CUTOFFS
from training.report.charts import Axis, Chart, Series, curves, intervals, labelled
from training.report.metrics_file import Blends, Epoch, Estimate, Metrics

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
MEANINGS = {
    "NDCG": "hits count more the higher they rank; 1 is the best possible order",
    "Recall": "share of the items that the user interacted with after the cut that are in the list",
    "Precision": "share of the list that the user interacted with",
    "MAP": "precision at each hit, averaged",
    "Diversity": (
        "how unlike two items of one list are: 1 minus the mean cosine of their catalogue entries"
    ),
    "Coverage": "share of the catalogue that is shown to at least one user",
    "Novelty": "how little known the shown items are, in bits: 1 more means half as many users",
}


@dataclass(frozen=True)
class Table:
    """A table of numbers, whose first `text_columns` columns are text."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 0


@dataclass(frozen=True)
class Figure:
    """Charts side by side, their caption, and a table of their numbers that a click opens."""

    charts: Sequence[Chart]
    caption: str = ""
    numbers: Table | None = None


@dataclass(frozen=True)
class Cell:
    """A mean as text, and its interval below it. `best`: of the best engine of the segment."""

    mean: str
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Segment:
    """A segment's rows of the main table: an engine and its cells."""

    name: str
    users: str
    rows: Sequence[tuple[str, Sequence[Cell]]]


def in_short(metrics: Metrics, gate: Mapping[str, Any]) -> list[str]:
    """One sentence a segment: its best single engine, and what the router serves; and the gate."""
    sentences = [
        _segment_sentence(metrics, segment, users) for segment, users in metrics.segments.items()
    ]
    if gate.get("cause"):
        sentences.append(f"The gate {gate.get('decision', '')} it: {gate['cause']}.")
    return sentences


def _segment_sentence(metrics: Metrics, segment: str, users: int) -> str:
    single = [
        estimate
        for estimate in metrics.of_engines(segment, _MAIN)
        if estimate.name not in (ROUTED, "ensemble")
    ]
    label = f"{segment.capitalize()} users ({users:,})"
    if users < LEAST_USERS or not single:
        return f"{label}: too few to compare engines."
    best = max(single, key=lambda estimate: estimate.mean)
    text = f"{label}: the best single engine is {best.name}, NDCG@10 {best.mean:.4f}"
    served = metrics.of(segment, _SERVED.get(segment, ROUTED), _MAIN)
    served = served or metrics.of(segment, ROUTED, _MAIN)
    if served is not None and best.mean > 0:
        name = "what is served" if served.name == ROUTED else f"the {served.name}"
        text += f"; {name} reaches {served.mean:.4f}"
        text += f", {served.mean / best.mean - 1.0:+.1%}".replace("-", "−")
        text += ", each within the other's interval" if _near(best, served) else ""
    return f"{text}."


def by_segment(metrics: Metrics) -> Figure:
    """A chart of NDCG@10 by engine for each segment, all on one scale."""
    estimates = {segment: metrics.of_engines(segment, _MAIN) for segment in metrics.segments}
    highs = [
        estimate.high or estimate.mean for engines in estimates.values() for estimate in engines
    ]
    highest = max(highs, default=0.0) or 1.0
    charts = [
        intervals(
            f"{segment.capitalize()}: {_users(metrics.segments[segment])}", of_segment, highest
        )
        for segment, of_segment in estimates.items()
        if of_segment
    ]
    caption = (
        "Lines are 95% bootstrap intervals over users; all segments have one scale. Where "
        "intervals overlap widely, a difference may be chance."
    )
    return Figure(charts, caption)


def main_columns() -> list[str]:
    """The names of the columns of numbers of the main table."""
    return [*_RANKING.values(), *_VARIETY.values()]


def main_rows(metrics: Metrics) -> list[Segment]:
    """Ranking metrics and variety by segment and engine."""
    return [_segment(metrics, segment, users) for segment, users in metrics.segments.items()]


def _segment(metrics: Metrics, segment: str, users: int) -> Segment:
    best = {
        metric: max(
            (estimate.mean for estimate in metrics.of_engines(segment, metric)), default=0.0
        )
        for metric in _RANKING
    }
    rows = [
        (
            engine,
            [
                _cell(metrics.of(segment, engine, metric), _DIGITS.get(metric, 3), best.get(metric))
                for metric in (*_RANKING, *_VARIETY)
            ],
        )
        for engine in metrics.engines
    ]
    return Segment(segment, _users(users), rows)


def _cell(estimate: Estimate | None, digits: int, best: float | None) -> Cell:
    if estimate is None:
        return Cell("–")
    interval = ""
    if estimate.low is not None and estimate.high is not None:
        interval = f"{estimate.low:.{digits}f}–{estimate.high:.{digits}f}"
    is_best = best is not None and estimate.mean >= best > 0
    return Cell(f"{estimate.mean:.{digits}f}", interval, is_best)


def by_cutoff(metrics: Metrics) -> Figure:
    """Curves of NDCG and recall by the length of the list."""
    charts, rows = [], []
    for metric, name in (("ndcg", "NDCG"), ("recall", "Recall")):
        series = []
        for engine in metrics.engines:
            means = {
                k: estimate.mean
                for k in CUTOFFS
                if (estimate := metrics.of("all", engine, f"{metric}@{k}")) is not None
            }
            if len(means) == len(CUTOFFS):
                series.append(Series(engine, [(float(k), mean) for k, mean in means.items()]))
                rows.append([name, engine, *(f"{mean:.4f}" for mean in means.values())])
        if series:
            x = Axis("items in the list", CUTOFFS)
            charts.append(curves(f"{name}, all users", series, x))
    return Figure(charts, numbers=Table(["metric", "engine", *map(str, CUTOFFS)], rows, 2))


def beside_variety(metrics: Metrics) -> Figure:
    """NDCG@10 against diversity and against coverage, a point an engine."""
    charts = []
    for metric, name in list(_VARIETY.items())[:2]:
        points = [
            (accuracy.name, (variety.mean, accuracy.mean))
            for accuracy in metrics.of_engines("all", _MAIN)
            if (variety := metrics.of("all", accuracy.name, metric)) is not None
        ]
        if points:
            title = f"NDCG@10 by {name.lower()}, all users"
            charts.append(labelled(title, points, name))
    return Figure(charts, "Further up is more accurate, further right is more varied.")


def blends(candidates: Blends) -> tuple[str, Figure]:
    """The blend that the ensemble serves, and NDCG@10 of the candidates by weight."""
    best = candidates.tried[0]
    parts = list(dict.fromkeys(name for blend in candidates.tried for name in blend.weights))
    series = []
    for part in parts:
        best_by_weight: dict[float, float] = {}
        for blend in candidates.tried:
            if blend.method != "learned":
                weight = round(blend.weights.get(part, 0.0), 3)
                best_by_weight[weight] = max(best_by_weight.get(weight, 0.0), blend.ndcg)
        points = sorted(best_by_weight.items())
        series.append(Series(part, points, _highest([ndcg for _, ndcg in points])))
    weights = " + ".join(
        f"{weight:.2g} {name}" for name, weight in best.weights.items() if weight > 0
    )
    method = (
        "in the mean of the users who chose, with learned weights"
        if best.method == "learned"
        else f"blended by {best.method}"
    )
    rows = [
        [
            *(f"{blend.weights.get(name, 0.0):.2g}" for name in parts),
            blend.method,
            f"{blend.ndcg:.4f}",
        ]
        for blend in candidates.tried
    ]
    chart = curves(
        "Best NDCG@10 by an engine's weight", series, Axis("weight in the blend"), from_zero=False
    )
    sentence = (
        f"The ensemble serves {weights}, {method}: NDCG@10 {best.ndcg:.4f} for the users who chose."
    )
    caption = (
        f"The best blend in which an engine has this weight. {candidates.users:,} users chose; "
        f"the evaluation above does not judge any of them."
    )
    return sentence, Figure([chart], caption, Table([*parts, "method", "NDCG@10"], rows))


def training(epochs: Sequence[Epoch]) -> Figure:
    """Loss and NDCG@10 of Two-Tower by epoch."""
    loss = Series("two_tower", [(float(epoch.epoch), epoch.loss) for epoch in epochs])
    x = Axis("epoch", range(1, len(epochs) + 1, 1 + len(epochs) // 8))
    charts = [curves("Loss", [loss], x, from_zero=False)]
    judged = [(float(epoch.epoch), epoch.ndcg) for epoch in epochs if epoch.ndcg is not None]
    if judged:
        series = Series("two_tower", judged, _highest([ndcg for _, ndcg in judged]))
        charts.append(curves("NDCG@10 of users' last items", [series], x))
    caption = (
        "The model is that of the marked epoch."
        if judged
        else "No item was held out, so the model is that of the last epoch."
    )
    rows = [
        [
            str(epoch.epoch),
            f"{epoch.loss:.4f}",
            "–" if epoch.ndcg is None else f"{epoch.ndcg:.4f}",
        ]
        for epoch in epochs
    ]
    return Figure(charts, caption, Table(["epoch", "loss", "NDCG@10"], rows))


def _near(a: Estimate, b: Estimate) -> bool:
    """Whether each mean lies within the other's interval."""
    return all(
        one.low is not None and one.high is not None and one.low <= other.mean <= one.high
        for one, other in ((a, b), (b, a))
    )


def _users(number: int) -> str:
    return f"{number:,} user{'' if number == 1 else 's'}"


def _highest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])
