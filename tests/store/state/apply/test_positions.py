"""Checks positions against the log, and the settings against the stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from core.errors import ConfigurationError, LogGap, LogRewound
from core.settings import Settings
from store.state.apply import counted_settings, positions


@pytest.mark.parametrize(
    ("position", "log", "topic_id", "error"),
    [
        ((10, None), (0, 10), "A", None),
        ((10, "A"), (10, 12), "A", None),
        ((10, "A"), (0, 9), "A", LogRewound),
        ((10, "A"), (0, 12), "B", LogRewound),
        ((10, "A"), (11, 12), "A", LogGap),
        ((0, None), (1, 12), None, None),  # nothing is applied yet: it begins where the log begins
    ],
)
def test_a_position_that_does_not_fit_the_log_is_refused(
    position: tuple[int, str | None], log: tuple[int, int], topic_id: str | None, error: Any
) -> None:
    def check() -> None:
        positions.check("interactions", 0, positions.Position(*position), *log, topic_id)

    if error is None:
        check()
    else:
        with pytest.raises(error, match="interactions/0"):
            check()


def test_changed_settings_on_which_stored_numbers_depend_are_refused(
    settings: Settings, redis: Redis
) -> None:
    counted_settings.check(redis, settings)
    counted_settings.check(redis, settings)
    with pytest.raises(ConfigurationError, match="popularity_half_life_days was 30 and is 14"):
        counted_settings.check(
            redis, settings.model_copy(update={"popularity_half_life_days": 14.0})
        )


def test_a_default_use_case_may_be_set_later_but_not_changed_without_a_rebuild(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    def check(default: str | None) -> None:
        text = Path("core/use_cases.toml").read_text()
        section = f"[use_cases.{default}]\n"
        path = tmp_path / "use_cases.toml"
        path.write_text(text.replace(section, f"{section}default = true\n"))
        counted_settings.check(redis, settings.model_copy(update={"use_cases_path": path}))

    check(None)
    check("developer_startup")
    check("developer_startup")
    with pytest.raises(ConfigurationError, match="was developer_startup and is investor_startup"):
        check("investor_startup")
    with pytest.raises(ConfigurationError, match=r"and is none.*default = true marks"):
        check(None)
