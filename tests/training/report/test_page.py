"""The page of an evaluation shows every number, needs no other file, and escapes all text.

`tests/page/test_report.py` opens it in a browser.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from core.errors import ModelCorrupt, ModelMissing
from core.settings import Settings
from models.registry import Registry
from tests.training import world
from training import commands
from training.data import dataset_files
from training.evaluation.evaluate import ENGINES, NAMES, SEGMENTS
from training.report import page as report

VOID = {"meta"}
HOSTILE = "</style><script>alert(1)</script>\"'&"


def metrics(**more: Any) -> dict[str, Any]:
    """The contents of metrics.json, in which no two means are equal."""
    rows = [
        {
            "engine": engine,
            "segment": segment,
            "users": 30 + at,
            "metric": name,
            "mean": mean,
            "low": mean - 0.004,
            "high": mean + 0.004,
        }
        for at, segment in enumerate(SEGMENTS)
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
    """The elements of a page, and the figures of its charts. Fails where one is not closed.

    `source`: without the scripts that run, which are no part of this project or the same in every
    page.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.whole, self.elements, self.words = source, [], []
        self.source = re.sub(r"<script>.*?</script>", "", source, flags=re.DOTALL)
        self.figures: list[dict[str, Any]] = []
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.figures.append(json.loads(data))
        elif "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def test_the_page_shows_the_numbers_of_every_engine_and_segment(tmp_path: Path) -> None:
    about = metrics()
    written = page(about, tmp_path)
    for row in about["rows"]:
        if row["metric"] in ("ndcg@10", "recall@10", "precision@10"):
            assert f"{row['mean']:.4f}" in written.words
            assert f"{row['low']:.4f}–{row['high']:.4f}" in written.words
        if row["metric"] == "diversity@10":
            assert f"{row['mean']:.3f}" in written.words
    assert "1,412" in written.text
    for part in SEGMENTS[1:]:
        assert re.search(
            rf"{part.capitalize()} users \(\d+\): the best single engine is two_tower", written.text
        )


def test_the_best_engine_is_bold_and_overlapping_intervals_are_mentioned(
    tmp_path: Path,
) -> None:
    about = metrics()
    written = page(about, tmp_path)
    assert (
        "All users (30): the best single engine is two_tower, NDCG@10 0.1340; what is "
        "served reaches 0.1540, +14.9%."
    ) in written.text
    assert (
        "Hot users (33): the best single engine is two_tower, NDCG@10 0.4340; the ensemble "
        "reaches 0.4440, +2.3%."
    ) in written.text
    assert re.findall(r"<b>(.*?)</b>", written.source)[:1] == ["0.1540"]
    for row in about["rows"]:
        row["low"], row["high"] = row["mean"] - 0.05, row["mean"] + 0.05
    written = page(about, tmp_path)
    assert "the ensemble reaches 0.4440, +2.3%, each within the other's interval." in written.text


def test_a_segment_with_few_users_is_not_compared(tmp_path: Path) -> None:
    few = metrics()
    for row in few["rows"]:
        row["users"] = 1
    written = page(few, tmp_path)
    assert "Warm users (1): too few to compare engines." in written.text
    assert "1 users" not in written.text


def test_without_an_ensemble_hot_users_are_compared_with_the_routed_answers(tmp_path: Path) -> None:
    about = metrics()
    about["rows"] = [row for row in about["rows"] if row["engine"] != "ensemble"]
    written = page(about, tmp_path)
    assert (
        "Hot users (33): the best single engine is two_tower, NDCG@10 0.4340; what is "
        "served reaches 0.4540"
    ) in written.text


def test_training_and_blends_are_drawn_if_the_metrics_have_them(tmp_path: Path) -> None:
    plain, whole = (
        page(metrics(), tmp_path),
        page(metrics(two_tower=CURVE, blends={"users": 900, "tried": TRIED}), tmp_path),
    )
    assert len(whole.figures) == len(plain.figures) + 3
    assert "Two-Tower's training" not in plain.text
    assert "0.3 als + 0.7 two_tower, blended by min_max" in whole.text
    for number in ("5.2500", "0.0922", "0.1111"):
        assert number in whole.words
    without = page(metrics(two_tower=[{"epoch": 1, "loss": 5.0, "ndcg@10": None}]), tmp_path)
    assert "No item was held out" in without.text


def test_a_page_fetches_nothing_and_its_charts_are_accessible(tmp_path: Path) -> None:
    written = page(metrics(two_tower=CURVE, blends={"users": 900, "tried": TRIED}), tmp_path)
    assert not re.search(r"https?:|src=|href=|url\(|@import|<link|\son\w+=", written.source)
    assert ("html", {"lang": "en"}) in written.elements
    assert all(attributes.get("scope") for tag, attributes in written.elements if tag == "th")
    plots = [attributes for _, attributes in written.elements if attributes.get("class") == "plot"]
    ids = {attributes["id"]: tag for tag, attributes in written.elements if "id" in attributes}
    assert len(plots) == len(written.figures) == len({plot["aria-labelledby"] for plot in plots})
    for plot in plots:
        assert plot["role"] == "img"
        assert ids[plot["aria-labelledby"]] == "h3"
        assert ids[plot["aria-describedby"]] == "p", "the numbers in words"
    tables = [tag for tag, _ in written.elements if tag == "table"]
    assert len(tables) == len([tag for tag, _ in written.elements if tag == "thead"])


def test_the_page_lets_only_its_own_scripts_run(tmp_path: Path) -> None:
    written = page(metrics(), tmp_path)
    scripts = re.findall(r"<script>(.*?)</script>", written.whole, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()) for script in scripts]
    allowed = "; script-src " + " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    policies = [
        attributes["content"]
        for _, attributes in written.elements
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'" + allowed]


def test_text_from_metrics_and_manifest_is_escaped(tmp_path: Path) -> None:
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
    written = page(about, tmp_path, manifest)
    assert HOSTILE in written.text
    scripts = [attributes for tag, attributes in written.elements if tag == "script"]
    assert len(scripts) == len(written.figures), "no script but the figures, which do not run"
    assert {attributes.get("type") for attributes in scripts} == {"application/json"}
    with pytest.raises(ModelCorrupt, match="engine"):
        page(metrics(blends={"users": 9, "tried": tried}), tmp_path)


def test_equal_metrics_make_equal_pages(tmp_path: Path) -> None:
    assert page(metrics(), tmp_path).whole == page(metrics(), tmp_path).whole


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
def test_incomplete_metrics_still_make_a_page(tmp_path: Path, change: dict[str, Any]) -> None:
    written = page(metrics(**change), tmp_path)
    assert "How the models were made" in written.text
    assert "nan" not in written.source


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
def test_invalid_metrics_raise_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.json").write_text(text, "utf-8")
    with pytest.raises(ModelCorrupt, match=r"metrics\.json"):
        report.write(tmp_path, {})


def test_the_command_writes_the_page_of_a_published_version(
    settings: Settings, tmp_path: Path
) -> None:
    data = world.built(settings, world.parity())
    folder, output = tmp_path / "evaluation", tmp_path / "pages" / "report.html"
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
    options = commands.EvaluationOptions(
        tmp_path / "dataset",
        world.write_items(tmp_path / "items.jsonl"),
        users=100,
        threads=1,
        output=folder,
    )
    commands.evaluate_dataset(small, options, console)
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
    written = Page(output.read_text("utf-8"))
    assert f"Evaluation of {version}" in written.words
    assert "The gate accepted it: there is no live bundle yet." in written.words
    (settings.models_path / version / "evaluation" / "metrics.json").write_bytes(
        numbers.replace(b"0.", b"1.", 1)
    )
    with pytest.raises(ModelCorrupt, match=r"metrics\.json is damaged"):
        commands.write_report(settings, version, output)
    with pytest.raises(ModelMissing, match="has no evaluation"):
        commands.write_report(settings, registry.publish(lambda _: None), output)
