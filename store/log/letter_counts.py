"""Counts the dead letters of the last day by code, and goes on counting."""

from __future__ import annotations

import time
from collections import Counter, deque

from core.settings import Settings
from store.log.reader import LogReader, Partition

DAY_S = 86_400.0
MOST = 20_000
"""Letters that are counted at most; of more, the latest."""


class LetterCounts:
    """Follows the dead-letter topic from a day ago on. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        """Connects nothing before the first `refresh`."""
        self._settings = settings
        self._reader: LogReader | None = None
        self._next: dict[Partition, int] = {}
        self._letters: deque[tuple[float, str]] = deque(maxlen=MOST)

    def refresh(self) -> Counter[str]:
        """The number of dead letters of the last day by code, up to the log's end.

        A letter that a crashed ingest wrote twice counts twice. Raises LogUnavailable.
        """
        if self._reader is None:
            self._reader = LogReader(self._settings, "page")
        self._start(self._reader)
        for message in self._reader.read({part: (at, None) for part, at in self._next.items()}):
            self._next[(message.topic(), message.partition())] = message.offset() + 1
            code = dict(message.headers() or ()).get("code")  # the note of a replay has none
            if code is not None:
                written_at = message.timestamp()[1] / 1000
                self._letters.append((written_at, code.decode("utf-8", "replace")))
        oldest = time.time() - DAY_S
        while self._letters and self._letters[0][0] < oldest:
            self._letters.popleft()
        return Counter(code for _, code in self._letters)

    def close(self) -> None:
        """Close the connection; the next `refresh` opens another and goes on."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _start(self, reader: LogReader) -> None:
        """Begin with partitions that are new: a day ago."""
        topic = self._settings.dlq_topic
        new = [part for part in reader.partitions(topic) if part not in self._next]
        if not new:
            return
        for partition, offset in reader.offsets_at(new, time.time() - DAY_S).items():
            # None: no letter since then
            self._next[partition] = reader.ends(partition, 0)[1] if offset is None else offset
