"""Draws small SVG charts: points with intervals, curves, labelled points.

A chart has no script, font or colour of its own. It is PLOT_WIDTH wide, so that its text is as
large as that of the page on a phone. The marks of an engine have its name as a class, which the
style sheet colours, and a shape of their own, for readers who see no colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from training.report.drawing import (
    BOTTOM,
    LEFT,
    LETTER,
    PLOT_WIDTH,
    TOP,
    Box,
    Scale,
    apart,
    free_box,
    grid_x,
    grid_y,
    label_boxes,
    mark,
    number,
    numbers_x,
    padded,
    text,
)
from training.report.markup import Markup, element

Point = tuple[float, float]

MOST_MARKS = 30
"""Most points of a curve that all have a mark; a longer curve has one at its end."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval, which may be unknown."""

    name: str
    mean: float
    low: float | None
    high: float | None


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


def intervals(title: str, rows: Sequence[Estimate], highest: float, names: Sequence[str]) -> Markup:
    """One row an estimate: a point, its interval as a line, its number; the axis ends at `highest`.

    `names`: all that have shapes.
    """
    gutter, height = 100, TOP + 24 * len(rows) + BOTTOM - 12
    x = Scale(0.0, highest, gutter, PLOT_WIDTH - 54)
    marks: list[Markup] = [grid_x(x, TOP, height - BOTTOM + 12)]
    for index, row in enumerate(rows):
        y = TOP + 24 * index + 14
        marks.append(text(row.name, gutter - 10, y + 4, "end"))
        if row.low is not None and row.high is not None:
            ends = {"x1": number(x(row.low)), "x2": number(x(row.high))}
            marks.append(element("line", **ends, y1=y, y2=y, class_=f"interval {row.name}"))
        marks.append(mark(row.name, x(row.mean), y, names))
        marks.append(text(f"{row.mean:.4f}", PLOT_WIDTH, y + 4, "end", "value"))
    description = "; ".join(f"{row.name} {row.mean:.4f}{_between(row)}" for row in rows)
    return _chart(title, description, height, marks)


def curves(
    title: str,
    curve_series: Sequence[Series],
    axis: Axis,
    names: Sequence[str],
    from_zero: bool = True,
) -> Markup:
    """Curves with their names at the right ends. `names`: all that have shapes."""
    height = 240
    points = [point for series in curve_series for point in series.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    longest = max(len(series.name) for series in curve_series)
    right = PLOT_WIDTH - 12 - math.ceil(longest * LETTER)
    x = Scale(min(xs), max(xs), LEFT, right, axis.ticks)
    y = Scale(0.0 if from_zero else min(ys), max(ys), height - BOTTOM, TOP)
    marks = [
        grid_y(y, LEFT, right),
        numbers_x(x, height),
        text(axis.label, (LEFT + right) / 2, height - 4, "middle", "axis"),
    ]
    ends = [y(series.points[-1][1]) for series in curve_series]
    for series, label in zip(curve_series, apart(ends, TOP, height - BOTTOM), strict=True):
        places = [(x(at), y(value)) for at, value in series.points]
        path = "M" + "L".join(f"{number(left)} {number(top)}" for left, top in places)
        marks.append(element("path", d=path, class_=f"curve {series.name}"))
        marked = places if len(places) <= MOST_MARKS else places[-1:]
        marks += [mark(series.name, left, top, names) for left, top in marked]
        if series.best is not None:
            left, top = places[series.best]
            marks.append(element("circle", cx=number(left), cy=number(top), r=9, class_="best"))
        marks.append(text(series.name, right + 10, label + 4, "start", series.name))
    description = "; ".join(
        f"{series.name} " + ", ".join(f"{value:.4f} at {at:g}" for at, value in series.points)
        for series in curve_series
    )
    return _chart(title, description, height, marks)


def labelled(
    title: str, points: Sequence[tuple[str, Point]], x_label: str, names: Sequence[str]
) -> Markup:
    """Points with their names beside them. `names`: all that have shapes."""
    height, right = 260, PLOT_WIDTH - 10
    x = padded([at for _, (at, _) in points], LEFT, right)
    y = padded([value for _, (_, value) in points], height - BOTTOM, TOP)
    marks = [grid_y(y, LEFT, right), grid_x(x, TOP, height - BOTTOM)]
    marks.append(text(x_label, (LEFT + right) / 2, height - 4, "middle", "axis"))
    places = {name: (x(at), y(value)) for name, (at, value) in points}
    occupied = [Box(left - 6, top - 6, left + 6, top + 6) for left, top in places.values()]
    # points near the right edge have the fewest places for a label, so they choose first
    for name, (left, top) in sorted(places.items(), key=lambda entry: -entry[1][0]):
        box = free_box(label_boxes(name, left, top), occupied, right)
        occupied.append(box)
        marks.append(mark(name, left, top, names))
        marks.append(text(name, box.left, box.bottom - 3, "start", name))
    description = "; ".join(f"{name} {value:.4f} at {at:.4f}" for name, (at, value) in points)
    return _chart(title, description, height, marks)


def _between(row: Estimate) -> str:
    return "" if row.low is None or row.high is None else f" ({row.low:.4f} to {row.high:.4f})"


def _chart(title: str, description: str, height: float, marks: Sequence[Markup]) -> Markup:
    """`description`: the numbers as text, for screen readers."""
    drawing = element(
        "svg",
        element("title", title),
        element("desc", description),
        *marks,
        viewBox=f"0 0 {PLOT_WIDTH} {height}",
        role="img",
        aria_label=title,
    )
    return element("div", element("h3", title), drawing, class_="chart")
