"""docs/your-own-domain.md leads from CSV files to a service that is tuned, watched and restored."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo import books
from testing import document
from testing.document import Block, Played
from testing.ports import free_port
from testing.process import ROOT

PAGE = ROOT / "docs" / "your-own-domain.md"
PORTS = r"\b(?:9092|6379|8000|910[1-4])\b"
SMALL_SHOP = "--readers 300 --books 150"
"""The test is about the commands; benchmarks/own_domain.py plays the whole shop and the time."""
FAST = {"TUNE_SECONDS": "2", "ENABLE_TWO_TOWER": "false", "ARCHIVE_FILE_S": "2"}
TIMEOUT_S = 600.0

pytestmark = pytest.mark.timeout(TIMEOUT_S + 60)


def _commands() -> Iterator[Block]:
    """The blocks of the page with free ports and a small shop."""
    ports: dict[str, str] = {}
    for block in document.blocks(PAGE):
        if "Install" in block.heading:  # `make install` is what made this environment
            continue
        script = re.sub(
            PORTS, lambda match: ports.setdefault(match[0], str(free_port())), block.script
        )
        yield Block(block.heading, script.replace("demo books .", f"demo books . {SMALL_SHOP}"))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[Played]:
    """Every command of the page, in a folder of its own, with an empty HOME."""
    folder = tmp_path_factory.mktemp("own")
    programs = folder / "bin"
    programs.mkdir()
    (programs / "eddyline").write_text(f'#!/bin/sh\nexec {sys.executable} -m eddyline "$@"\n')
    (programs / "eddyline").chmod(0o755)
    (folder / "home").mkdir()
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "80",
        **FAST,
    }
    return document.play(list(_commands()), folder, environment, TIMEOUT_S)


def _output(played: list[Played], heading: str) -> str:
    return "".join(part.output for part in played if heading in part.block.heading)


def _answers(text: str) -> list[dict[str, object]]:
    decoder, answers = json.JSONDecoder(), []
    for match in re.finditer(r'\{"', text):
        try:
            answer, _ = decoder.raw_decode(text, match.start())
        except json.JSONDecodeError:
            continue
        if "recommendations" in answer:
            answers.append(answer)
    return answers


def test_every_command_of_the_page_succeeds(played: list[Played]) -> None:
    assert len(played) > 15
    assert "Traceback" not in "".join(part.output for part in played)


def test_the_first_recommendations_are_books_for_the_reader(played: list[Played]) -> None:
    reader, filtered, newcomer = _answers(_output(played, "first recommendation"))[:3]
    assert reader["user_id"] == "r00007"
    assert len(reader["recommendations"]) == 3  # type: ignore[arg-type]
    for line in filtered["recommendations"]:  # type: ignore[attr-defined]
        assert "Crime" in line["metadata"]["categories"]
        assert line["metadata"]["attributes"]["price"] <= 20
    assert newcomer["interaction_count"] == 1


def test_the_retrain_of_the_page_publishes_a_bundle(played: list[Played]) -> None:
    assert "8/8" in _output(played, "Train and tune")


def test_the_service_that_is_restored_from_the_backup_answers_as_before(
    played: list[Played],
) -> None:
    before = _answers(_output(played, "first recommendation"))[0]
    after = _answers(_output(played, "Back up"))[-1]
    for name in ("interaction_count", "method_used"):
        assert after[name] == before[name], name
    assert after["model_version"] is not None
    backup = _output(played, "Back up")
    (events,) = set(re.findall(r"events\.parquet: ([\d,]+) events", backup))
    assert re.search(rf"\bsent\W+{events}\s", backup), "every event of the backup is sent"


def test_the_shop_is_the_same_each_time_and_as_a_database_exports_it(tmp_path: Path) -> None:
    shop = books.Shop(50, 60, seed=7, end=datetime(2026, 11, 1, tzinfo=UTC))
    first, second = tmp_path / "first", tmp_path / "second"
    assert books.write(shop, first) == books.write(shop, second)
    for name in ("books.csv", "readers.csv", "events.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    with (first / "books.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    isbns = {row["isbn"] for row in rows}
    assert len(isbns) == len(rows) >= 60
    for isbn in isbns:
        assert sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(isbn)) % 10 == 0
    with (first / "events.csv").open(encoding="utf-8") as file:
        events = list(csv.DictReader(file, delimiter=";"))
    assert {event["isbn"] for event in events} <= isbns
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)
