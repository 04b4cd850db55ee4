"""An import shows what it makes of a file before it sends, and tells what became of each row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from core.settings import Settings
from streams.importers.command import preview
from streams.importers.plan import Plan
from tests.streams.importers.world import run_import, sent

ROWS = (
    "userId,movieId,rating,timestamp\n"
    "1,1,5,978300760\n2,1,five,978300760\n3,1,5,2024-01-15\n4,1,NULL,978300760\n,2,5,978300760\n"
    "5,1,five,978300760\n6,1,six,978300760\n7,1,six,978300760\n"
)


def test_a_preview_shows_mapping_rows_and_rejects_and_sends_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "ratings.csv").write_text(ROWS)
    shown = run_import(settings, tmp_path / "ratings.csv", "--preview")
    assert shown.returncode == 0, shown.stderr
    assert "MovieLens ratings" in shown.stdout
    assert "item_id" in shown.stdout
    assert "movieId" in shown.stdout
    assert re.search(r"^rejected: bad_value +4 +3, 7, 8 ", shown.stdout, re.MULTILINE)
    assert re.search(r"^rejected: whole_day +1 +4 ", shown.stdout, re.MULTILINE)
    assert re.search(r"^missing rating +1$", shown.stdout, re.MULTILINE)
    as_json = run_import(settings, tmp_path / "ratings.csv", "--preview", "--json")
    facts = json.loads(as_json.stdout)
    assert facts["columns"]["item_id"] == "movieId"
    assert facts["rows"]["missing"]["rating"] == 1
    rejects = {reject["code"]: reject for reject in facts["rows"]["rejects"]}
    assert rejects["bad_value"]["first_rows"] == [3, 7, 8]
    assert not (tmp_path / "rejects.jsonl").exists()


def test_too_many_rejects_are_exit_status_3_and_the_valid_rows_are_sent(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "ratings.csv").write_text(ROWS)
    result = run_import(settings, tmp_path / "ratings.csv")
    assert result.returncode == 3, result.stderr
    assert "6 of 8 rows were rejected, more than --max-rejects 1.00%" in result.stderr
    assert "3, 7, 8" in result.stdout
    assert {event["user_id"] for event in sent(settings)} == {"1", "4"}
    assert run_import(settings, tmp_path / "ratings.csv", "--max-rejects", "80%").returncode == 0


def test_an_event_id_that_comes_twice_is_sent_once(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "events.csv").write_text(
        "event_id,user_id,item_id,event_type,timestamp\n"
        "e1,u1,a,view,1700000000\ne1,u1,a,view,1700000000\ne1,u2,a,view,1700000000\n"
    )
    result = run_import(settings, tmp_path / "events.csv")
    assert result.returncode == 0, result.stderr
    assert "duplicates" in result.stdout
    assert sorted(str(event["user_id"]) for event in sent(settings)) == ["u1", "u2"]


def test_a_preview_of_events_without_times_says_how_to_give_them_one(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ratings.csv").write_text("user_id,book_id,rating\n1,258,5\n2,4081,4\n")
    preview(settings, Plan(path=tmp_path / "ratings.csv"))
    shown = capsys.readouterr().out
    assert "no row would be sent" in shown
    assert re.search(r"^no timestamp +2 +give --default-timestamp", shown, re.MULTILINE)
