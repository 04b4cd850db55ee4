"""Draws the parts of charts: scales, grids, marks, and labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from training.report.markup import Markup, element, joined

PLOT_WIDTH = 360
"""Width of a chart; the style sheet shows a unit as at most one CSS pixel."""
TOP, BOTTOM, LEFT = 10, 36, 46
_LINE = 15
"""Least distance of two lines of text."""
LETTER = 6.6
"""Mean width of a letter in the style sheet's chart text, to find labels that overlap."""
_SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")


@dataclass(frozen=True)
class Scale:
    """Maps numbers to coordinates. `fixed_ticks`: the numbers on the axis; None: round ones."""

    low: float
    high: float
    start: float
    end: float
    fixed_ticks: Sequence[float] | None = None

    def __call__(self, value: float) -> float:
        """The coordinate of `value`."""
        span = self.high - self.low
        share = (value - self.low) / span if span > 0 else 0.5
        return self.start + (self.end - self.start) * share

    @property
    def ticks(self) -> list[float]:
        """The numbers on the axis."""
        if self.fixed_ticks is not None:
            return list(self.fixed_ticks)
        return list(_round_numbers(self.low, self.high))


def padded(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale with some room around the values."""
    room = 0.12 * (max(values) - min(values)) or 0.05
    return Scale(max(0.0, min(values) - room), max(values) + room, start, end)


def _round_numbers(low: float, high: float, about: int = 5) -> Iterator[float]:
    """About `about` numbers of one, two or five times a power of ten between `low` and `high`."""
    span = high - low
    if not 0 < span < math.inf:
        yield low
        return
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * times for times in (1, 2, 5, 10) if power * times * about >= span * 0.999)
    for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield round(count * step, 12)


def grid_x(x: Scale, top: float, bottom: float) -> Markup:
    """Vertical lines at the ticks, and the numbers below them."""
    lines = [
        element(
            "line",
            x1=number(x(tick)),
            x2=number(x(tick)),
            y1=number(top),
            y2=number(bottom),
            class_="grid",
        )
        for tick in x.ticks
    ]
    return joined(*lines, numbers_x(x, bottom + BOTTOM))


def numbers_x(x: Scale, height: float) -> Markup:
    """The numbers of the x axis, in a chart of this height."""
    return joined(*(text(f"{tick:g}", x(tick), height - 20, "middle", "tick") for tick in x.ticks))


def grid_y(y: Scale, left: float, right: float) -> Markup:
    """Horizontal lines at the ticks, and the numbers left of them."""
    marks = []
    for tick in y.ticks:
        marks.append(
            element(
                "line",
                x1=number(left),
                x2=number(right),
                y1=number(y(tick)),
                y2=number(y(tick)),
                class_="grid",
            )
        )
        marks.append(text(f"{tick:g}", left - 6, y(tick) + 4, "end", "tick"))
    return joined(*marks)


def mark(name: str, x: float, y: float, names: Sequence[str]) -> Markup:
    """The shape of `name`, which is one of `names`."""
    shape, style = _SHAPES[names.index(name) % len(_SHAPES)], f"mark {name}"
    if shape in ("circle", "ring"):
        return element(
            "circle",
            cx=number(x),
            cy=number(y),
            r=4.5,
            class_=style if shape == "circle" else f"{style} open",
        )
    if shape == "cross":
        return element(
            "path", d=f"M{number(x - 4)} {number(y - 4)}l8 8m0 -8l-8 8", class_=f"{style} open"
        )
    if shape == "square":
        return element("rect", x=number(x - 4), y=number(y - 4), width=8, height=8, class_=style)
    corners = "l5 9h-10z" if shape == "triangle" else "l5.5 5.5l-5.5 5.5l-5.5 -5.5z"
    return element("path", d=f"M{number(x)} {number(y - 5.5)}{corners}", class_=style)


def apart(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """The heights of labels, moved so that no two overlap."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    moved = list(heights)
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + _LINE)
    moved[order[-1]] = min(moved[order[-1]], bottom)
    for below, above in pairwise(reversed(order)):
        moved[above] = max(min(moved[above], moved[below] - _LINE), top)
    return moved


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two rectangles have a common point."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def label_boxes(name: str, x: float, y: float) -> list[Box]:
    """The places for the label of a point, best first: right, left, above, below, and farther."""
    wide, half = len(name) * LETTER, len(name) * LETTER / 2
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
    return [Box(left, top, left + wide, top + _LINE) for left, top in corners]


def free_box(boxes: Sequence[Box], occupied: Sequence[Box], right: float) -> Box:
    """The first of `boxes` that overlaps the fewest of `occupied`."""
    inside = [box for box in boxes if box.left > LEFT and box.right < right] or boxes
    return min(inside, key=lambda box: sum(box.overlaps(other) for other in occupied))


def text(content: str, x: float, y: float, anchor: str, style: str = "label") -> Markup:
    """A line of text; `anchor` as in SVG, `style` is its class."""
    return element("text", content, x=number(x), y=number(y), text_anchor=anchor, class_=style)


def number(place: float) -> str:
    """A coordinate as SVG text."""
    return f"{place:.1f}"
