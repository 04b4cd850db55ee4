"""`python -m training tune`: its parts share one file and one time budget."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigurationError
from core.settings import Settings
from tests.training.tuning.run import USERS, tune_part
from training.tuning import als as tune_als
from training.tuning import command as tune
from training.tuning import served as tune_served
from training.tuning import two_tower as tune_two_tower
from training.tuning.options import Part, TuneOptions


def test_all_parts_are_tuned_into_one_file(small: Settings, folder: Path) -> None:
    sections, printed = tune_part(small, folder, Part.ALL)
    assert set(sections) == {"als", "two_tower", "blend", "router", "tuned"}
    assert set(sections["tuned"]) == {"als", "two-tower", "blend", "router"}
    assert set(sections["blend"]["weights"]) <= {"als", "two_tower", "content_based"}
    assert sections["tuned"]["router"]["verdict"] in printed
    assert sections["tuned"]["router"]["users"] == USERS // 5
    continued, _ = tune_part(small, folder, Part.TWO_TOWER)
    assert continued["tuned"]["two-tower"]["trials"] == 2, "the second run continues the search"
    assert {name: continued[name] for name in ("als", "blend", "router")} == {
        name: sections[name] for name in ("als", "blend", "router")
    }


def test_a_file_that_tune_did_not_write_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letter.json").write_text("Dear Ann", "utf-8")
    with pytest.raises(ConfigurationError, match="no file of `tune`"):
        tune.add(tmp_path / "letter.json", "als", {"als": {}, "tuned": {}})
    assert (tmp_path / "letter.json").read_text("utf-8") == "Dear Ann"


def test_time_that_a_part_does_not_use_goes_to_the_parts_after_it(
    small: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes: dict[str, float] = {}

    def record_minutes(name: str, sections: Mapping[str, Any]) -> Any:
        def part(*arguments: Any) -> Mapping[str, Any]:
            [options] = [argument for argument in arguments if isinstance(argument, TuneOptions)]
            minutes[name] = options.minutes
            return sections

        return part

    nothing = {"tuned": {}}
    monkeypatch.setattr(tune_als, "search", record_minutes("als", nothing))
    monkeypatch.setattr(tune_als, "report", lambda *_: None)
    monkeypatch.setattr(tune_two_tower, "search", record_minutes("two-tower", nothing))
    monkeypatch.setattr(tune_two_tower, "report", lambda *_: None)
    monkeypatch.setattr(tune_served, "choose", record_minutes("served", {}))
    tune_part(small, folder, Part.ALL, minutes=100)
    assert minutes["als"] == pytest.approx(20, abs=1)
    assert minutes["two-tower"] == pytest.approx(62.5, abs=1), (
        "five eighths of the 100 minutes that ALS did not use"
    )
    assert minutes["served"] == pytest.approx(100, abs=1)
    minutes.clear()
    tune_part(small, folder, Part.ROUTER, minutes=7)
    assert minutes == {"served": pytest.approx(7, abs=1)}


def test_without_two_tower_the_other_parts_are_tuned(small: Settings, folder: Path) -> None:
    disabled = small.model_copy(update={"enable_two_tower": False})
    with pytest.raises(
        ConfigurationError, match="Two-Tower cannot be tuned: disabled by ENABLE_TWO_TOWER=false"
    ):
        tune_part(disabled, folder, Part.TWO_TOWER)
    sections, printed = tune_part(disabled, folder, Part.ALL)
    assert set(sections) == {"als", "router", "tuned"}
    assert "Two-Tower is skipped: disabled by ENABLE_TWO_TOWER=false." in printed
    assert "Blend: nothing changes, there is no Two-Tower to blend" in printed
    assert sections["router"]["warm_user_threshold"] == small.warm_user_threshold
