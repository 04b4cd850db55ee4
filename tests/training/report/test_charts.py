"""A chart's points stand at their numbers, an engine looks the same in each, and words say them."""

from __future__ import annotations

import pytest

from training.evaluation.evaluate import ENGINES
from training.report import charts
from training.report.charts import Axis, Series
from training.report.metrics_file import Estimate

ROWS = [
    Estimate("popular", 0.1, 0.05, 0.2),
    Estimate("content_based", 0.3, 0.25, 0.4),
    Estimate("als", 0.2, None, None),
]


def test_points_stand_at_their_means_and_lines_reach_the_ends_of_the_intervals() -> None:
    chart = charts.intervals("t", ROWS, 0.4)
    for row, trace in zip(ROWS, chart.figure["data"], strict=True):
        assert (trace["x"], trace["y"]) == ([row.mean], [row.name])
        if row.low is None or row.high is None:
            assert "error_x" not in trace
        else:
            ends = trace["error_x"]
            assert row.mean - ends["arrayminus"][0] == pytest.approx(row.low)
            assert row.mean + ends["array"][0] == pytest.approx(row.high)
    assert [note["text"] for note in chart.figure["layout"]["annotations"]] == [
        "0.1000",
        "0.3000",
        "0.2000",
    ]
    low, high = chart.figure["layout"]["xaxis"]["range"]
    assert low == 0
    assert high >= 0.4


def test_words_say_the_numbers_of_a_chart() -> None:
    assert charts.intervals("t", ROWS, 0.4).words == (
        "popular 0.1000 (0.0500 to 0.2000); content_based 0.3000 (0.2500 to 0.4000); als 0.2000"
    )
    curve = Series("als", [(5.0, 0.1), (20.0, 0.2)])
    assert charts.curves("t", [curve], Axis("x")).words == "als 0.1000 at 5, 0.2000 at 20"
    assert charts.labelled("t", [("als", (0.5, 0.25))], "x").words == "als 0.2500 at 0.5000"


def test_an_engine_has_a_shape_and_a_colour_of_its_own_in_every_chart() -> None:
    def looks(chart: charts.Chart) -> dict[str, tuple[str, str]]:
        return {
            trace["name"]: (trace["marker"]["symbol"], trace["marker"]["color"])
            for trace in chart.figure["data"]
        }

    rows = [Estimate(name, 0.1, 0.0, 0.2) for name in ENGINES]
    points = [(name, (0.1, 0.2)) for name in reversed(ENGINES)]
    curve = [Series(name, [(5.0, 0.1), (20.0, 0.2)]) for name in ENGINES]
    first = looks(charts.intervals("t", rows, 0.4))
    assert len(set(first.values())) == len(ENGINES)
    assert looks(charts.labelled("t", points, "x")) == first
    assert looks(charts.curves("t", curve, Axis("x"))) == first


def test_the_best_point_of_a_curve_has_a_ring() -> None:
    curve = Series("als", [(1.0, 0.1), (2.0, 0.3), (3.0, 0.2)], best=1)
    line, ring = charts.curves("t", [curve], Axis("epoch")).figure["data"]
    assert (line["x"], line["y"]) == ([1.0, 2.0, 3.0], [0.1, 0.3, 0.2])
    assert (ring["x"], ring["y"], ring["marker"]["symbol"]) == ([2.0], [0.3], "circle-open")


def test_a_long_curve_has_no_marks() -> None:
    points = [(float(epoch), 1.0 / epoch) for epoch in range(1, charts.MOST_MARKS + 2)]
    modes = [
        charts.curves("t", [Series("als", part)], Axis("epoch")).figure["data"][0]["mode"]
        for part in (points, points[:-1])
    ]
    assert modes == ["lines", "lines+markers"]
