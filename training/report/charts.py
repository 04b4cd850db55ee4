"""Makes the charts of the page, as figures of Plotly.

Colours are custom properties of the style sheet (`var(--als)`), which `draw.js` looks up: so a
chart is light or dark as the page is. An engine has a shape of its own, for readers who see no
colours, and every chart has its numbers in words, for readers who see no charts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plotly import graph_objects

from training.evaluation.evaluate import ENGINES
from training.report.metrics_file import Estimate

Point = tuple[float, float]

MOST_MARKS = 30
"""Most points of a curve that all have a mark; a longer curve has none."""
_SHAPES = ("circle", "square", "triangle-up", "diamond", "x-thin-open", "circle-open")
_HEIGHT = 300
_ROW = 28
"""Pixels between two rows of `intervals`."""


@dataclass(frozen=True)
class Chart:
    """A chart. `words`: its numbers in words; `figure`: what Plotly draws, as JSON."""

    title: str
    words: str
    figure: dict[str, Any]


@dataclass(frozen=True)
class Series:
    """The points of a curve, from left to right. `best`: index of the point that is marked."""

    name: str
    points: Sequence[Point]
    best: int | None = None


@dataclass(frozen=True)
class Axis:
    """The x axis of `curves`. `ticks`: its numbers; None: round ones."""

    label: str
    ticks: Sequence[float] | None = None


def intervals(title: str, rows: Sequence[Estimate], highest: float) -> Chart:
    """A row an estimate: its point, interval and number; the axis ends at `highest`."""
    traces = []
    for row in rows:
        known = row.low is not None and row.high is not None
        interval = {
            "type": "data",
            "symmetric": False,
            "array": [row.high - row.mean] if row.high is not None else [],
            "arrayminus": [row.mean - row.low] if row.low is not None else [],
            "thickness": 2.5,
            "width": 0,
        }
        traces.append(
            graph_objects.Scatter(
                name=row.name,
                x=[row.mean],
                y=[row.name],
                mode="markers",
                marker=_marker(row.name),
                error_x=interval if known else None,
                showlegend=False,
                hovertemplate=f"{row.name} {row.mean:.4f}{_between(row)}<extra></extra>",
            )
        )
    numbers = [
        {
            "text": f"{row.mean:.4f}",
            "x": 1,
            "xref": "paper",
            "xanchor": "left",
            "xshift": 8,
            "y": row.name,
            "showarrow": False,
            "font": {"color": "var(--ink)"},
        }
        for row in rows
    ]
    layout = {
        "height": _ROW * len(rows) + 46,
        "margin": {"l": 104, "r": 60, "t": 4, "b": 34},
        "annotations": numbers,
        "xaxis": {"range": [0, highest * 1.02]},
        "yaxis": {
            "autorange": False,
            "range": [len(rows) - 0.5, -0.5],
            "showgrid": False,
            "tickfont": {"color": "var(--ink)", "size": 12},
            "type": "category",
        },
    }
    words = "; ".join(f"{row.name} {row.mean:.4f}{_between(row)}" for row in rows)
    return _chart(title, words, traces, layout)


def curves(title: str, curve_series: Sequence[Series], axis: Axis, from_zero: bool = True) -> Chart:
    """Curves, and their names above them."""
    traces = []
    for series in curve_series:
        xs, ys = [x for x, _ in series.points], [y for _, y in series.points]
        traces.append(
            graph_objects.Scatter(
                name=series.name,
                x=xs,
                y=ys,
                mode="lines+markers" if len(xs) <= MOST_MARKS else "lines",
                line={"color": _colour(series.name), "width": 2},
                marker=_marker(series.name),
                hovertemplate="%{y:.4f} at %{x:g}",
            )
        )
        if series.best is not None:
            x, y = series.points[series.best]
            ring = {"symbol": "circle-open", "size": 18, "color": "var(--ink)"}
            traces.append(
                graph_objects.Scatter(
                    name=f"{series.name}, best",
                    x=[x],
                    y=[y],
                    mode="markers",
                    marker={**ring, "line": {"width": 1.5}},
                    showlegend=False,
                    hoverinfo="skip",
                )
            )
    ticks = {} if axis.ticks is None else {"tickvals": list(axis.ticks)}
    layout = {
        "xaxis": {"title": _label(axis.label), **ticks},
        "yaxis": {"rangemode": "tozero" if from_zero else "normal"},
    }
    words = "; ".join(
        f"{series.name} " + ", ".join(f"{value:.4f} at {at:g}" for at, value in series.points)
        for series in curve_series
    )
    return _chart(title, words, traces, layout)


def labelled(title: str, points: Sequence[tuple[str, Point]], x_label: str) -> Chart:
    """A point an engine, and their names above them."""
    traces = [
        graph_objects.Scatter(
            name=name,
            x=[at],
            y=[value],
            mode="markers",
            marker=_marker(name, 11),
            hovertemplate="%{y:.4f} at %{x:.4f}",
        )
        for name, (at, value) in points
    ]
    words = "; ".join(f"{name} {value:.4f} at {at:.4f}" for name, (at, value) in points)
    return _chart(title, words, traces, {"xaxis": {"title": _label(x_label)}})


def _chart(
    title: str, words: str, traces: Sequence[graph_objects.Scatter], layout: dict[str, Any]
) -> Chart:
    axis = {
        "fixedrange": True,
        "gridcolor": "var(--line)",
        "zeroline": False,
        "automargin": True,
        "tickfont": {"size": 11},
        "nticks": 6,
    }
    common = {
        "template": "none",
        "autosize": True,
        "height": _HEIGHT,
        "margin": {"l": 48, "r": 12, "t": 8, "b": 40},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "var(--soft)", "size": 12, "family": "system-ui, sans-serif"},
        "hoverlabel": {"bgcolor": "var(--card)", "font": {"color": "var(--ink)"}},
        "dragmode": False,
        "legend": {
            "orientation": "h",
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"color": "var(--ink)"},
            "entrywidth": 88,
            "itemclick": False,
            "itemdoubleclick": False,
        },
        "showlegend": sum(trace.showlegend is not False for trace in traces) > 1,
    }
    axes = {name: {**axis, **layout.get(name, {})} for name in ("xaxis", "yaxis")}
    figure = graph_objects.Figure(traces, {**common, **layout, **axes})
    return Chart(title, words, figure.to_plotly_json())


def _label(text: str) -> dict[str, Any]:
    return {"text": text, "font": {"size": 12}}


def _marker(engine: str, size: int = 9) -> dict[str, Any]:
    shape = _SHAPES[ENGINES.index(engine) % len(_SHAPES)]
    line = {"width": 2.2} if shape.endswith("open") else {"width": 1, "color": "var(--card)"}
    return {"symbol": shape, "size": size, "color": _colour(engine), "line": line}


def _colour(engine: str) -> str:
    return f"var(--{engine})"


def _between(row: Estimate) -> str:
    return "" if row.low is None or row.high is None else f" ({row.low:.4f} to {row.high:.4f})"
