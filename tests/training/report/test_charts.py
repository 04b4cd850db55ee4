"""Charts put marks at their numbers, and labels where they do not overlap."""

from __future__ import annotations

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree as ET

import pytest

from training.evaluation.evaluate import ENGINES
from training.report import charts
from training.report.charts import Axis, Estimate
from training.report.markup import Markup, element


def svg(chart: Markup) -> ET.Element:
    return ET.fromstring(re.findall(r"<svg.*</svg>", chart)[0])


def test_marks_stand_at_their_numbers_and_within_their_intervals() -> None:
    rows = [
        Estimate("popular", 0.1, 0.05, 0.2),
        Estimate("content_based", 0.3, 0.25, 0.4),
        Estimate("als", 0.2, None, None),
    ]
    drawn = svg(charts.intervals("t", rows, 0.4, ENGINES))
    circle, square = (
        next(mark for mark in drawn.iter(tag) if "mark" in mark.get("class", ""))
        for tag in ("circle", "rect")
    )
    one, other = float(circle.get("cx", "")), float(square.get("x", "")) + 4
    lines = {
        line.get("class", ""): line
        for line in drawn.iter("line")
        if "interval" in line.get("class", "")
    }
    assert set(lines) == {"interval popular", "interval content_based"}
    low, high = (float(lines["interval popular"].get(end, "")) for end in ("x1", "x2"))
    assert low < one < high
    numbers = {
        tick.text: float(tick.get("x", ""))
        for tick in drawn.iter("text")
        if tick.get("class") == "tick"
    }
    assert one == pytest.approx(numbers["0.1"], abs=0.2)
    assert other == pytest.approx(numbers["0.3"], abs=0.2)


def test_labels_of_curves_that_end_at_one_point_do_not_overlap() -> None:
    series = [charts.Series(name, [(5.0, 0.1), (20.0, 0.2)]) for name in ENGINES]
    drawn = svg(charts.curves("t", series, Axis("x"), ENGINES))
    heights = sorted(
        float(label.get("y", "")) for label in drawn.iter("text") if label.text in ENGINES
    )
    assert len(heights) == len(ENGINES)
    assert all(below - above >= 14 for above, below in pairwise(heights))


def test_labels_of_points_near_each_other_and_the_edge_are_apart_and_inside() -> None:
    near = [
        ("content_based", (0.1, 0.02)),
        ("als", (0.145, 0.07)),
        ("two_tower", (0.149, 0.05)),
        ("ensemble", (0.14, 0.068)),
    ]
    drawn = svg(charts.labelled("t", near, "Coverage@10", ENGINES))
    labels = [
        (float(label.get("x", "")), float(label.get("y", "")), 6 * len(label.text or ""))
        for label in drawn.iter("text")
        if label.text in ENGINES
    ]
    assert len(labels) == len(near)
    assert all(x > 0 and x + wide < charts.PLOT_WIDTH for x, _, wide in labels)
    for (left, y, wide), (other, below, width) in combinations(labels, 2):
        assert abs(y - below) >= 12 or left + wide <= other or other + width <= left


def test_text_that_is_not_markup_is_escaped() -> None:
    paragraph = element("p", "a < b & c", Markup("<b>d</b>"), class_='"x"', aria_label=None)
    assert paragraph == '<p class="&quot;x&quot;">a &lt; b &amp; c<b>d</b></p>'
