"""Parses times as people and exports write them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from core.errors import ConfigurationError


def parse(text: str) -> float:
    """Seconds since 1970 from a number of seconds or ISO 8601 (UTC where no zone is given).

    Raises ConfigurationError.
    """
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text.strip())
        except ValueError:
            raise ConfigurationError(
                f"{text!r} is no time: give seconds since 1970 or ISO 8601, such as "
                f"2026-11-22T10:00:00Z"
            ) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ConfigurationError(f"{text!r} is no time")
    return seconds
