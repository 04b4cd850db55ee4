"""Which events of a partition are duplicates: a pure function of the log."""

from __future__ import annotations


class Dedup:
    """An event is a duplicate when its event_id stood on an earlier event at most `window` offsets
    before it in its partition.

    Feed every valid event of one partition in offset order, duplicates too: `seen` answers and
    remembers. Memory: at most twice `window` ids.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._last: dict[str, int] = {}

    def seen(self, event_id: str, offset: int) -> bool:
        """True when the event at `offset` is a duplicate.

        Offsets must not go down; the same offset twice is no duplicate.
        """
        last = self._last.get(event_id, -1)
        self._last[event_id] = offset
        if len(self._last) > 2 * self.window + 1000:
            oldest = offset - self.window
            self._last = {known: at for known, at in self._last.items() if at >= oldest}
        return last >= 0 and 0 < offset - last <= self.window
