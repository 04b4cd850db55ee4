"""The evaluation report in a browser: its charts, on a phone, in the dark, on paper, by keyboard.

`tests/training/report` compares its text with the metrics.
"""

from __future__ import annotations

import json

import pytest

from tests.page.conftest import Open
from tests.page.window import NARROW, WIDE
from tests.support import eventually
from tests.training.report.test_page import CURVE, TRIED, metrics
from training.report import page as report


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report as a file, as a reader opens it from a mail."""
    folder = tmp_path_factory.mktemp("evaluation")
    about = metrics(two_tower=CURVE, blends={"users": 900, "tried": TRIED})
    (folder / "metrics.json").write_text(json.dumps(about), "utf-8")
    report.write(folder, {"version": "2026-11-26T12-00-00Z-00000000"})
    return (folder / report.PAGE).as_uri()


@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_a_report_is_legible_on_a_laptop_and_a_phone_light_and_dark(
    address: str, open_page: Open, width: int, scheme: str
) -> None:
    window = open_page(address, width=width, scheme=scheme)
    window.check_structure("report")
    plots = window.page.locator(".plot")
    assert window.page.locator(".drawn .plot svg.main-svg").count() >= plots.count() == 11
    assert window.overflow() == 0
    assert window.violations() == []


def test_a_chart_has_a_point_at_each_number_and_shows_it_under_the_pointer(
    address: str, open_page: Open
) -> None:
    page = open_page(address).page
    chart = page.locator(".chart").first
    assert chart.locator(".points path.point").count() == 6
    places = [
        point.bounding_box()["x"]  # type: ignore[index]
        for point in chart.locator(".points path.point").all()
    ]
    assert places == sorted(places), "the engines of this report are better from row to row"
    numbers = chart.locator(".annotation-text").all_text_contents()
    assert numbers == ["0.1040", "0.1140", "0.1240", "0.1340", "0.1440", "0.1540"]
    chart.locator(".points path.point").nth(2).hover(force=True)
    hint = chart.locator(".hoverlayer .hovertext")
    hint.first.wait_for()
    assert hint.first.text_content() == "als 0.1240 (0.1200 to 0.1280)"


def test_charts_follow_the_reader_from_light_to_dark(address: str, open_page: Open) -> None:
    page = open_page(address).page
    point = page.locator(".chart").first.locator(".points path.point").nth(2)
    fill = "element => getComputedStyle(element).fill"
    assert point.evaluate(fill) == "rgb(0, 114, 178)"
    page.emulate_media(color_scheme="dark")
    eventually(lambda: point.evaluate(fill) == "rgb(86, 180, 233)", "the light blue of dark pages")


def test_charts_fit_on_paper_and_are_dark_on_white(address: str, open_page: Open) -> None:
    page = open_page(address, scheme="dark").page
    page.evaluate(
        """() => addEventListener("beforeprint", () => {
          const drawings = [...document.querySelectorAll(".plot .main-svg")];
          window.printed = drawings.map((drawing) => drawing.clientWidth);
          window.ink = getComputedStyle(document.querySelector(".annotation-text")).fill;
        })"""
    )
    page.pdf(format="A4")
    assert max(page.evaluate("window.printed")) <= 330
    assert page.evaluate("window.ink") == "rgb(29, 36, 48)"
    width = page.locator(".plot .main-svg").first.evaluate("svg => svg.clientWidth")
    assert width > 330, "on the screen again"


def test_without_scripts_the_numbers_of_a_chart_are_words(address: str, open_page: Open) -> None:
    page = open_page(address, java_script_enabled=False).page
    words = page.locator(".words").first
    assert words.is_visible()
    assert "als 0.1240 (0.1200 to 0.1280)" in (words.text_content() or "")


def test_a_report_is_read_by_keyboard(address: str, open_page: Open) -> None:
    window = open_page(address)
    window.press_until("Tab", "div Metrics by engine and segment")
    window.press_until("Tab", "summary The numbers")
    numbers = window.page.get_by_role("region", name="The numbers: lengths")
    assert not numbers.is_visible()
    window.page.keyboard.press("Enter")
    assert numbers.is_visible()
