"""Small charts as SVG: points with intervals, curves, labelled points. No script, no font, no
colour of their own.

Each chart is PLOT_WIDTH wide, so that its text has the size of the page's on a phone, and charts
stand side by side where there is room. What belongs to one engine has the class of its name, for
the style sheet to colour, and a shape of its own, for those who see no colour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from training.report.markup import Markup, element, joined

Point = tuple[float, float]

PLOT_WIDTH = 360
"""Units of a chart's width; the style sheet shows one as a CSS pixel at most."""
_TOP, _BOTTOM, _LEFT = 10, 36, 46
_LINE = 15
"""Least distance of two lines of text."""
_LETTER = 6.6
"""Mean width of a letter at the style sheet's size of chart text: enough to tell whether two labels
would meet.
"""
_SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval, which may be unknown."""

    name: str
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Series:
    """The points of a curve, from left to right. `best`: place of the one that is marked."""

    name: str
    points: Sequence[Point]
    best: int | None = None


def intervals(title: str, rows: Sequence[Estimate], highest: float, names: Sequence[str]) -> Markup:
    """One row an estimate: a point, its interval as a line, its number; the axis ends at `highest`.

    `names`: all that have shapes.
    """
    gutter, height = 100, _TOP + 24 * len(rows) + _BOTTOM - 12
    x = _Scale(0.0, highest, gutter, PLOT_WIDTH - 54)
    marks: list[Markup] = [_grid_x(x, _TOP, height - _BOTTOM + 12)]
    for place, row in enumerate(rows):
        y = _TOP + 24 * place + 14
        marks.append(_text(row.name, gutter - 10, y + 4, "end"))
        if row.low is not None and row.high is not None:
            marks.append(
                element(
                    "line",
                    x1=_at(x(row.low)),
                    x2=_at(x(row.high)),
                    y1=y,
                    y2=y,
                    class_=f"interval {row.name}",
                )
            )
        marks.append(_mark(row.name, x(row.mean), y, names))
        marks.append(_text(f"{row.mean:.4f}", PLOT_WIDTH, y + 4, "end", "value"))
    told = "; ".join(f"{row.name} {row.mean:.4f}{_between(row)}" for row in rows)
    return _chart(title, told, height, marks)


def curves(
    title: str,
    series: Sequence[Series],
    x_label: str,
    names: Sequence[str],
    xs: Sequence[float] | None = None,
    from_zero: bool = True,
) -> Markup:
    """Curves with their names at the right ends.

    `xs`: where the x axis has its numbers; by itself where it is None.
    """
    height = 240
    points = [point for each in series for point in each.points]
    top, bottom = max(y for _, y in points), 0.0 if from_zero else min(y for _, y in points)
    right = PLOT_WIDTH - 12 - math.ceil(max(len(each.name) for each in series) * _LETTER)
    x = _Scale(min(at for at, _ in points), max(at for at, _ in points), _LEFT, right, xs)
    y = _Scale(bottom, top, height - _BOTTOM, _TOP)
    marks = [
        _grid_y(y, _LEFT, right),
        _numbers_x(x, height),
        _text(x_label, (_LEFT + right) / 2, height - 4, "middle", "axis"),
    ]
    labels = _apart([y(each.points[-1][1]) for each in series], _TOP, height - _BOTTOM)
    for each, label in zip(series, labels, strict=True):
        path = "M" + "L".join(f"{_at(x(at))} {_at(y(value))}" for at, value in each.points)
        marks.append(element("path", d=path, class_=f"curve {each.name}"))
        shown = each.points if len(each.points) <= 30 else each.points[-1:]
        marks += [_mark(each.name, x(at), y(value), names) for at, value in shown]
        if each.best is not None:
            at, value = each.points[each.best]
            marks.append(element("circle", cx=_at(x(at)), cy=_at(y(value)), r=9, class_="best"))
        marks.append(_text(each.name, right + 10, label + 4, "start", each.name))
    told = "; ".join(
        f"{each.name} " + ", ".join(f"{value:.4f} at {at:g}" for at, value in each.points)
        for each in series
    )
    return _chart(title, told, height, marks)


def labelled(
    title: str, points: Sequence[tuple[str, Point]], x_label: str, names: Sequence[str]
) -> Markup:
    """A point an entry, with its name beside it."""
    height, right = 260, PLOT_WIDTH - 10
    x = _padded([at for _, (at, _) in points], _LEFT, right)
    y = _padded([value for _, (_, value) in points], height - _BOTTOM, _TOP)
    marks = [_grid_y(y, _LEFT, right), _grid_x(x, _TOP, height - _BOTTOM)]
    marks.append(_text(x_label, (_LEFT + right) / 2, height - 4, "middle", "axis"))
    places = {name: (x(at), y(value)) for name, (at, value) in points}
    taken = [_Box(at - 6, value - 6, at + 6, value + 6) for at, value in places.values()]
    # those near the right edge have least choice
    for name, (at, value) in sorted(places.items(), key=lambda each: -each[1][0]):
        box = _free(_boxes(name, at, value), taken, right)
        taken.append(box)
        marks += [
            _mark(name, at, value, names),
            _text(name, box.left, box.bottom - 3, "start", name),
        ]
    return _chart(
        title,
        "; ".join(f"{name} {value:.4f} at {at:.4f}" for name, (at, value) in points),
        height,
        marks,
    )


@dataclass(frozen=True)
class _Scale:
    """From numbers to places; `ticks`: the numbers that are written, None for round ones."""

    low: float
    high: float
    start: float
    end: float
    given: Sequence[float] | None = None

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return self.start + (self.end - self.start) * (
            (value - self.low) / span if span > 0 else 0.5
        )

    @property
    def ticks(self) -> list[float]:
        return (
            list(self.given)
            if self.given is not None
            else list(_round_numbers(self.low, self.high))
        )


def _padded(values: Sequence[float], start: float, end: float) -> _Scale:
    """A scale with some room around the values."""
    room = 0.12 * (max(values) - min(values)) or 0.05
    return _Scale(max(0.0, min(values) - room), max(values) + room, start, end)


def _round_numbers(low: float, high: float, about: int = 5) -> Iterator[float]:
    """Some `about` numbers of one, two or five times a power of ten between `low` and `high`."""
    span = high - low
    if not 0 < span < math.inf:
        yield low
        return
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * times for times in (1, 2, 5, 10) if power * times * about >= span * 0.999)
    for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield round(count * step, 12)


def _grid_x(x: _Scale, top: float, bottom: float) -> Markup:
    lines = [
        element(
            "line", x1=_at(x(tick)), x2=_at(x(tick)), y1=_at(top), y2=_at(bottom), class_="grid"
        )
        for tick in x.ticks
    ]
    return joined(*lines, _numbers_x(x, bottom + _BOTTOM))


def _numbers_x(x: _Scale, height: float) -> Markup:
    return joined(*(_text(f"{tick:g}", x(tick), height - 20, "middle", "tick") for tick in x.ticks))


def _grid_y(y: _Scale, left: float, right: float) -> Markup:
    marks = []
    for tick in y.ticks:
        marks.append(
            element(
                "line", x1=_at(left), x2=_at(right), y1=_at(y(tick)), y2=_at(y(tick)), class_="grid"
            )
        )
        marks.append(_text(f"{tick:g}", left - 6, y(tick) + 4, "end", "tick"))
    return joined(*marks)


def _mark(name: str, x: float, y: float, names: Sequence[str]) -> Markup:
    """The shape of `name`, which is one of `names`."""
    shape, style = _SHAPES[names.index(name) % len(_SHAPES)], f"mark {name}"
    if shape in ("circle", "ring"):
        return element(
            "circle",
            cx=_at(x),
            cy=_at(y),
            r=4.5,
            class_=style if shape == "circle" else f"{style} open",
        )
    if shape == "cross":
        return element(
            "path", d=f"M{_at(x - 4)} {_at(y - 4)}l8 8m0 -8l-8 8", class_=f"{style} open"
        )
    if shape == "square":
        return element("rect", x=_at(x - 4), y=_at(y - 4), width=8, height=8, class_=style)
    corners = "l5 9h-10z" if shape == "triangle" else "l5.5 5.5l-5.5 5.5l-5.5 -5.5z"
    return element("path", d=f"M{_at(x)} {_at(y - 5.5)}{corners}", class_=style)


def _apart(places: Sequence[float], top: float, bottom: float) -> list[float]:
    """The `places` of labels, moved until each has a line of its own."""
    order = sorted(range(len(places)), key=lambda at: places[at])
    moved = list(places)
    for before, at in pairwise(order):
        moved[at] = max(moved[at], moved[before] + _LINE)
    moved[order[-1]] = min(moved[order[-1]], bottom)
    for at, before in pairwise(reversed(order)):
        moved[before] = max(min(moved[before], moved[at] - _LINE), top)
    return moved


@dataclass(frozen=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def _boxes(name: str, x: float, y: float) -> list[_Box]:
    """Where the label of a point may stand, best first: to the right, to the left, above, below,
    and further off.
    """
    wide, half = len(name) * _LETTER, len(name) * _LETTER / 2
    corners = [
        (x + 9, y - 8),
        (x - 9 - wide, y - 8),
        (x - half, y - 23),
        (x - half, y + 8),
        (x + 9, y - 21),
        (x + 9, y + 6),
    ]
    corners += [
        (x - 9 - wide, y - 21),
        (x - 9 - wide, y + 6),
        (x - half, y - 37),
        (x - half, y + 22),
    ]
    return [_Box(left, top, left + wide, top + _LINE) for left, top in corners]


def _free(boxes: Sequence[_Box], taken: Sequence[_Box], right: float) -> _Box:
    """The first of `boxes` that meets the fewest of `taken`."""
    inside = [box for box in boxes if box.left > _LEFT and box.right < right] or boxes
    return min(inside, key=lambda box: sum(box.meets(other) for other in taken))


def _text(content: str, x: float, y: float, anchor: str, style: str = "label") -> Markup:
    return element("text", content, x=_at(x), y=_at(y), text_anchor=anchor, class_=style)


def _at(place: float) -> str:
    return f"{place:.1f}"


def _between(row: Estimate) -> str:
    return "" if row.low is None or row.high is None else f" ({row.low:.4f} to {row.high:.4f})"


def _chart(title: str, told: str, height: float, marks: Sequence[Markup]) -> Markup:
    """`told`: the numbers in words, for those who do not see the drawing."""
    drawing = element(
        "svg",
        element("title", title),
        element("desc", told),
        *marks,
        viewBox=f"0 0 {PLOT_WIDTH} {height}",
        role="img",
        aria_label=title,
    )
    return element("div", element("h3", title), drawing, class_="chart")
