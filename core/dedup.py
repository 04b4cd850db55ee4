"""Decides which events of a partition are duplicates, from the log alone."""

from __future__ import annotations

from collections.abc import Sequence


class Dedup:
    """Remembers the event ids of one partition within the window.

    An event is a duplicate when its event_id stood on an earlier event at most `window` offsets
    before it in its partition. Pass every valid event in offset order, duplicates too. Memory: at
    most the ids of twice the window.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        # Event id -> its latest offset, of a range of `window` + 1 offsets and of the range before
        # it. A whole range is forgotten at once, without a look at each id.
        self._ids: dict[str, int] = {}
        self._older: dict[str, int] = {}
        self._end = 0

    def __len__(self) -> int:
        """The number of ids in memory."""
        return len(self._ids) + len(self._older)

    def is_duplicate(self, event_id: str, offset: int) -> bool:
        """Remember the event at `offset`, and return whether it is a duplicate.

        Offsets must not decrease; the same offset twice is no duplicate.
        """
        if offset >= self._end:
            self._begin(offset)
        last = self._ids.get(event_id)
        if last is None:
            last = self._older.get(event_id, offset)
        self._ids[event_id] = offset
        return 0 < offset - last <= self.window

    def take_new(self, event_ids: Sequence[str], offsets: Sequence[int]) -> bool:
        """Remember many events, at least one, if it is certain that none of them is a duplicate;
        else remember none of them. Cheaper than as many calls of `is_duplicate`.
        """
        if offsets[-1] >= self._end:
            if offsets[0] < self._end:
                return False  # of two ranges
            self._begin(offsets[0])
            if offsets[-1] >= self._end:
                return False
        events = dict(zip(event_ids, offsets, strict=True))
        if len(events) < len(event_ids):
            return False
        if not (self._ids.keys().isdisjoint(events) and self._older.keys().isdisjoint(events)):
            return False
        self._ids.update(events)
        return True

    def _begin(self, offset: int) -> None:
        """Begin a range at `offset`, and forget the one before the last."""
        # after a gap of a whole window the last one is forgotten, too
        self._older = self._ids if offset - self._end <= self.window else {}
        self._ids, self._end = {}, offset + self.window + 1
