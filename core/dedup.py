"""Decides which events of a partition are duplicates, from the log alone."""

from __future__ import annotations


class Dedup:
    """Remembers the event ids of one partition within the window.

    An event is a duplicate when its event_id stood on an earlier event at most `window` offsets
    before it in its partition. Pass every valid event in offset order, duplicates too. Memory: at
    most twice `window` ids, and 1,000.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._last: dict[str, int] = {}

    def __len__(self) -> int:
        """The number of ids in memory."""
        return len(self._last)

    def is_duplicate(self, event_id: str, offset: int) -> bool:
        """Remember the event at `offset`, and return whether it is a duplicate.

        Offsets must not decrease; the same offset twice is no duplicate.
        """
        last = self._last.get(event_id, -1)
        self._last[event_id] = offset
        if len(self._last) > 2 * self.window + 1000:
            oldest = offset - self.window
            self._last = {known: at for known, at in self._last.items() if at >= oldest}
        return last >= 0 and 0 < offset - last <= self.window
