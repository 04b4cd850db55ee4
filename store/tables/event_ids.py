"""Finds the rows of a table that repeat an event, as ingest would."""

from __future__ import annotations

from core.dedup import Dedup


class EventIds:
    """The event ids of the rows so far. An id counts once within `window` rows."""

    def __init__(self, window: int) -> None:
        self._dedup, self._row = Dedup(window), 0

    def is_repeated(self, user_id: str, event_id: str) -> bool:
        """Remember the next row, and return whether its event came before."""
        self._row += 1
        # events of other users may be in other partitions, with a window of their own
        return self._dedup.is_duplicate(f"{user_id}\n{event_id}", self._row)
