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
        self._forget_at = 0

    def __len__(self) -> int:
        """The number of ids in memory."""
        return len(self._last)

    def is_duplicate(self, event_id: str, offset: int) -> bool:
        """Remember the event at `offset`, and return whether it is a duplicate.

        Offsets must not decrease; the same offset twice is no duplicate.
        """
        last = self._last.setdefault(event_id, offset)
        if last != offset:
            self._last[event_id] = offset
        if offset >= self._forget_at:
            self._forget(offset)
        return 0 < offset - last <= self.window

    def _forget(self, offset: int) -> None:
        """Forget the ids that are out of the window at `offset`."""
        oldest = offset - self.window
        self._last = {known: at for known, at in self._last.items() if at >= oldest}
        self._forget_at = offset + self.window + 1000
