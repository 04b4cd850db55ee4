"""Checks positions against the log, and the settings against the stored ones."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis

from core.errors import ConfigurationError, LogGap, LogRewound
from core.settings import Settings
from store.state.apply import positions


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
    positions.check_settings(redis, settings)
    positions.check_settings(redis, settings)
    with pytest.raises(ConfigurationError, match="popularity_half_life_days was 30 and is 14"):
        positions.check_settings(
            redis, settings.model_copy(update={"popularity_half_life_days": 14.0})
        )
