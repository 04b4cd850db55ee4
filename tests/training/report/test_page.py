"""The page of an evaluation: it shows the numbers, works without anything else, and lets nobody's
text become a part of it.
"""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from core.errors import ModelCorrupt, ModelMissing
from core.settings import Settings
from models.registry import Registry
from tests.training import world
from training import commands
from training.data import dataset_files
from training.evaluation.evaluate import ENGINES, NAMES, SEGMENTS
from training.report import charts
from training.report import page as report
from training.report.charts import Estimate
from training.report.markup import Markup, element

VOID = {"meta"}
HOSTILE = "</style><script>alert(1)</script>\"'&"


def metrics(**more: Any) -> dict[str, Any]:
    """What metrics.json holds, with numbers that can be told apart."""
    rows = [
        {
            "engine": engine,
            "segment": part,
            "users": 30 + at,
            "metric": name,
            "mean": mean,
            "low": mean - 0.004,
            "high": mean + 0.004,
        }
        for at, part in enumerate(SEGMENTS)
        for place, engine in enumerate(ENGINES)
        for column, name in enumerate([*NAMES, "coverage@10"])
        if (mean := 0.1 + 0.1 * at + 0.01 * place + 0.0004 * column)
    ]
    about = {
        "cut": 976130933.0,
        "users": 13,
        "users_with_new_items": 1412,
        "seed": 42,
        "dataset": "ea13a380eedce64d",
        "rows": rows,
    }
    return {**about, **more}


CURVE = [
    {"epoch": 1, "loss": 5.25, "ndcg@10": 0.0711},
    {"epoch": 2, "loss": 4.5, "ndcg@10": 0.0922},
    {"epoch": 3, "loss": 4, "ndcg@10": 0.09},
]
TRIED = [
    {"weights": {"als": 0.3, "two_tower": 0.7}, "fusion": "min_max", "ndcg@10": 0.1234},
    {"weights": {"als": 1.0, "two_tower": 0.0}, "fusion": "rank", "ndcg@10": 0.1111},
]


def page(about: dict[str, Any], folder: Path, manifest: dict[str, Any] | None = None) -> Page:
    (folder / "metrics.json").write_text(json.dumps(about), "utf-8")
    report.write(folder, manifest or {})
    return Page((folder / "report.html").read_text("utf-8"))


class Page(HTMLParser):
    """The elements of a page. Fails where one is not closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.elements, self.words = source, [], []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def drawings(self) -> list[ET.Element]:
        return [
            ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", self.source, re.DOTALL)
        ]


def test_every_engine_and_segment_is_there_with_its_numbers(tmp_path: Path) -> None:
    about = metrics()
    shown = page(about, tmp_path)
    for row in about["rows"]:
        if row["metric"] in ("ndcg@10", "recall@10", "precision@10"):
            assert f"{row['mean']:.4f}" in shown.words
            assert f"{row['low']:.4f}–{row['high']:.4f}" in shown.words
        if row["metric"] == "diversity@10":
            assert f"{row['mean']:.3f}" in shown.words
    assert "1,412" in shown.text
    for part in SEGMENTS[1:]:
        assert re.search(
            rf"{part.capitalize()} users \(\d+\): the best single engine is two_tower", shown.text
        )


def test_the_best_is_bold_and_a_difference_within_the_intervals_is_called_so(
    tmp_path: Path,
) -> None:
    about = metrics()
    shown = page(about, tmp_path)
    assert (
        "All users (30): the best single engine is two_tower, NDCG@10 0.1340; what they "
        "get reaches 0.1540, +14.9%."
    ) in shown.text
    assert (
        "Hot users (33): the best single engine is two_tower, NDCG@10 0.4340; the ensemble "
        "reaches 0.4440, +2.3%."
    ) in shown.text
    assert re.findall(r"<b>(.*?)</b>", shown.source)[:1] == ["0.1540"]
    for row in about["rows"]:
        row["low"], row["high"] = row["mean"] - 0.05, row["mean"] + 0.05
    shown = page(about, tmp_path)
    assert "the ensemble reaches 0.4440, +2.3%, each within the other's interval." in shown.text


def test_a_handful_of_users_is_no_comparison(tmp_path: Path) -> None:
    few = metrics()
    for row in few["rows"]:
        row["users"] = 1
    shown = page(few, tmp_path)
    assert "Warm users (1): too few to compare engines by." in shown.text
    assert "1 users" not in shown.text


def test_hot_users_without_an_ensemble_are_told_what_they_get(tmp_path: Path) -> None:
    about = metrics()
    about["rows"] = [row for row in about["rows"] if row["engine"] != "ensemble"]
    shown = page(about, tmp_path)
    assert (
        "Hot users (33): the best single engine is two_tower, NDCG@10 0.4340; what they "
        "get reaches 0.4540"
    ) in shown.text


def test_training_and_blends_are_drawn_where_they_are_known(tmp_path: Path) -> None:
    plain, whole = (
        page(metrics(), tmp_path),
        page(metrics(two_tower=CURVE, blends={"users": 900, "tried": TRIED}), tmp_path),
    )
    assert len(whole.drawings) == len(plain.drawings) + 3
    assert "Two-Tower's training" not in plain.text
    assert "0.3 als + 0.7 two_tower, fused by min_max" in whole.text
    for number in ("5.2500", "0.0922", "0.1111"):
        assert number in whole.words
    without = page(metrics(two_tower=[{"epoch": 1, "loss": 5.0, "ndcg@10": None}]), tmp_path)
    assert "Nobody was held out" in without.text


def test_a_page_fetches_nothing_runs_nothing_and_can_be_read_without_eyes(tmp_path: Path) -> None:
    shown = page(metrics(two_tower=CURVE, blends={"users": 900, "tried": TRIED}), tmp_path)
    assert not re.search(r"https?:|src=|href=|url\(|@import|<script|<link|\son\w+=", shown.source)
    assert ("html", {"lang": "en"}) in shown.elements
    assert all(attributes.get("scope") for tag, attributes in shown.elements if tag == "th")
    assert all(
        attributes.get("role") == "img" for tag, attributes in shown.elements if tag == "svg"
    )
    for drawing in shown.drawings:
        assert (drawing.findtext("title") or "").strip()
        assert re.search(r"\d\.\d{4}", drawing.findtext("desc") or ""), "the numbers in words"
    tables = [tag for tag, _ in shown.elements if tag == "table"]
    assert len(tables) == len([tag for tag, _ in shown.elements if tag == "thead"])


def test_nobodys_text_becomes_a_part_of_the_page(tmp_path: Path) -> None:
    tried = [{"weights": {HOSTILE: 1.0, "als": 0.0}, "fusion": HOSTILE, "ndcg@10": 0.1}]
    about = metrics(describes=HOSTILE, dataset=HOSTILE)
    about["rows"].append({**about["rows"][0], "engine": HOSTILE})
    about["rows"].append({**about["rows"][0], "segment": HOSTILE})
    manifest = {
        "version": HOSTILE,
        "created": HOSTILE,
        "gate": {"decision": HOSTILE, "cause": HOSTILE},
        "settings": {"als": {HOSTILE: HOSTILE}},
        "libraries": {HOSTILE: HOSTILE},
    }
    shown = page(about, tmp_path, manifest)
    assert HOSTILE in shown.text
    assert not [tag for tag, _ in shown.elements if tag == "script"]
    with pytest.raises(ModelCorrupt, match="engine"):
        page(metrics(blends={"users": 9, "tried": tried}), tmp_path)


def test_the_same_numbers_make_the_same_page(tmp_path: Path) -> None:
    assert page(metrics(), tmp_path).source == page(metrics(), tmp_path).source


@pytest.mark.parametrize(
    "change",
    [
        {"rows": []},
        {
            "rows": [
                {
                    "engine": "als",
                    "segment": "all",
                    "users": 1,
                    "metric": "ndcg@10",
                    "mean": None,
                    "low": None,
                    "high": None,
                }
            ]
        },
        {
            "rows": [
                {
                    "engine": "als",
                    "segment": "hot",
                    "users": 1,
                    "metric": "ndcg@10",
                    "mean": 0.0,
                    "low": 0.0,
                    "high": 0.0,
                }
            ]
        },
        {"two_tower": CURVE[:1]},
        {"blends": {"users": 0, "tried": []}},
        {"blends": {"users": 9, "tried": TRIED[:1]}},
    ],
)
def test_little_to_show_is_still_a_page(tmp_path: Path, change: dict[str, Any]) -> None:
    shown = page(metrics(**change), tmp_path)
    assert "How it came about" in shown.text
    assert "nan" not in shown.source


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"rows": 1}',
        json.dumps(metrics()).replace('"mean": 0.1,', '"mean": "x",', 1),
    ],
)
def test_numbers_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.json").write_text(text, "utf-8")
    with pytest.raises(ModelCorrupt, match=r"metrics\.json"):
        report.write(tmp_path, {})


def test_a_mark_stands_where_its_number_says_and_within_its_interval() -> None:
    rows = [
        Estimate("popular", 0.1, 0.05, 0.2),
        Estimate("content_based", 0.3, 0.25, 0.4),
        Estimate("als", 0.2, None, None),
    ]
    drawn = ET.fromstring(re.findall(r"<svg.*</svg>", charts.intervals("t", rows, 0.4, ENGINES))[0])
    circle, square = (
        next(each for each in drawn.iter(tag) if "mark" in each.get("class", ""))
        for tag in ("circle", "rect")
    )
    one, other = float(circle.get("cx", "")), float(square.get("x", "")) + 4
    lines = {
        each.get("class", ""): each
        for each in drawn.iter("line")
        if "interval" in each.get("class", "")
    }
    assert set(lines) == {"interval popular", "interval content_based"}
    low, high = (float(lines["interval popular"].get(end, "")) for end in ("x1", "x2"))
    assert low < one < high
    numbers = {
        each.text: float(each.get("x", ""))
        for each in drawn.iter("text")
        if each.get("class") == "tick"
    }
    assert one == pytest.approx(numbers["0.1"], abs=0.2)
    assert other == pytest.approx(numbers["0.3"], abs=0.2)


def test_labels_of_curves_that_end_together_do_not_lie_on_each_other() -> None:
    series = [charts.Series(name, [(5.0, 0.1), (20.0, 0.2)]) for name in ENGINES]
    drawn = ET.fromstring(re.findall(r"<svg.*</svg>", charts.curves("t", series, "x", ENGINES))[0])
    heights = sorted(
        float(each.get("y", "")) for each in drawn.iter("text") if each.text in ENGINES
    )
    assert len(heights) == len(ENGINES)
    assert all(below - above >= 14 for above, below in pairwise(heights))


def test_the_labels_of_points_near_each_other_and_the_edge_lie_apart_and_inside() -> None:
    near = [
        ("content_based", (0.1, 0.02)),
        ("als", (0.145, 0.07)),
        ("two_tower", (0.149, 0.05)),
        ("ensemble", (0.14, 0.068)),
    ]
    drawn = ET.fromstring(
        re.findall(r"<svg.*</svg>", charts.labelled("t", near, "Coverage@10", ENGINES))[0]
    )
    labels = [
        (float(each.get("x", "")), float(each.get("y", "")), 6 * len(each.text or ""))
        for each in drawn.iter("text")
    ]
    labels = [
        label
        for label, each in zip(labels, drawn.iter("text"), strict=True)
        if each.text in ENGINES
    ]
    assert len(labels) == len(near)
    assert all(x > 0 and x + wide < charts.PLOT_WIDTH for x, _, wide in labels)
    for (left, y, wide), (other, below, width) in combinations(labels, 2):
        assert abs(y - below) >= 12 or left + wide <= other or other + width <= left


def test_what_is_no_markup_is_escaped() -> None:
    made = element("p", "a < b & c", Markup("<b>d</b>"), class_='"x"', aria_label=None)
    assert made == '<p class="&quot;x&quot;">a &lt; b &amp; c<b>d</b></p>'


def test_the_command_writes_the_page_of_a_published_version(
    settings: Settings, tmp_path: Path
) -> None:
    data = world.built(settings, world.parity())
    folder, output = tmp_path / "judged", tmp_path / "pages" / "report.html"
    console = Console(file=io.StringIO(), width=200)
    small = settings.model_copy(
        update={
            "als_factors": 4,
            "als_regularization": 5.0,
            "als_alpha": 2.0,
            "holdout_fraction": 0.25,
        }
    )
    dataset_files.save(data, tmp_path / "dataset")
    commands.evaluate_dataset(
        small,
        tmp_path / "dataset",
        world.write_items(tmp_path / "items.jsonl"),
        None,
        100,
        1,
        folder,
        console,
    )
    assert (folder / "report.html").is_file()
    numbers = (folder / "metrics.json").read_bytes()

    def write(bundle: Path) -> None:
        (bundle / "evaluation").mkdir()
        (bundle / "evaluation" / "metrics.json").write_bytes(numbers)

    registry = Registry(settings.models_path)
    version = registry.publish(
        write, {"gate": {"decision": "accepted", "cause": "there is no live bundle yet"}}
    )
    commands.write_report(settings, None, output)
    shown = Page(output.read_text("utf-8"))
    assert f"Evaluation of {version}" in shown.words
    assert "The gate accepted it: there is no live bundle yet." in shown.words
    (settings.models_path / version / "evaluation" / "metrics.json").write_bytes(
        numbers.replace(b"0.", b"1.", 1)
    )
    with pytest.raises(ModelCorrupt, match=r"metrics\.json is damaged"):
        commands.write_report(settings, version, output)
    with pytest.raises(ModelMissing, match="has no evaluation"):
        commands.write_report(settings, registry.publish(lambda _: None), output)
