"""Follows the dead-letter topic: which of the newest letters wait, and which were replayed.

It keeps no messages, only what a list shows: about 500 bytes a letter. A refresh reads the records
since the one before.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from core.errors import BadEvent
from core.settings import Settings
from store.dead_letters.letters import Coordinates
from store.log import client as log
from store.log import dead_letters
from store.log.dead_letters import DeadLetter
from store.log.reader import LogReader, Partition

NEWEST = 20_000
"""Records of each partition that the first refresh reads: older letters are left to the command
`dlq`.
"""
MOST = 20_000
"""Letters in the index; the oldest are dropped."""


class Entry(msgspec.Struct, frozen=True):
    """A letter in the index. `record`: partition and offset in the dead-letter topic; `time`: when
    it was written there, in milliseconds since 1970; `letter`: without its message.
    """

    record: tuple[int, int]
    time: int
    letter: DeadLetter

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it stands in the order of the index."""
        return (self.time, *self.record)


class LetterPage(msgspec.Struct, frozen=True):
    """Letters, newest first.

    `following`: the place to go on from, None at the end. `codes`: waiting letters by code.
    """

    entries: Sequence[Entry]
    following: tuple[int, int, int] | None
    codes: dict[str, int]


class LetterIndex:
    """The newest letters of one topic. Not thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._positions: dict[Partition, int] = {}
        self._entries: dict[Coordinates, Entry] = {}
        self.replayed: dict[Coordinates, str] = {}
        """Coordinates of replayed letters -> token of the message that was sent."""
        self.complete = False
        """Whether the last refresh reached the end of the topic."""

    def refresh(self, seconds: float) -> None:
        """Read what came since the last refresh, for about `seconds` at most.

        Raises LogUnavailable.
        """
        topic, deadline = self._settings.dlq_topic, time.monotonic() + seconds
        log.ensure_topics(self._settings, [topic])
        with LogReader(self._settings, "dlq") as reader:
            ranges = {
                partition: (self._start(reader, partition), None)
                for partition in reader.partitions(topic)
            }
            self.complete = True
            messages = reader.read(ranges)
            try:
                for message in messages:
                    self._add(message)
                    if time.monotonic() > deadline:
                        self.complete = False
                        break
            finally:
                messages.close()
        self._drop_oldest()

    def page(
        self, limit: int, code: str | None = None, before: tuple[int, int, int] | None = None
    ) -> LetterPage:
        """The newest `limit` letters that wait, of one `code`, before a place of another page."""
        waiting = [entry for place, entry in self._entries.items() if place not in self.replayed]
        codes = Counter(entry.letter.code for entry in waiting)
        selected = sorted(
            (
                entry
                for entry in waiting
                if (code is None or entry.letter.code == code)
                and (before is None or entry.place < before)
            ),
            key=lambda entry: entry.place,
            reverse=True,
        )
        entries = selected[:limit]
        following = entries[-1].place if len(selected) > limit else None
        return LetterPage(entries, following, dict(codes.most_common()))

    def letter(self, coordinates: Coordinates) -> DeadLetter | None:
        """The letter with its message, read again from the topic; None: not in the index or gone.

        Raises LogUnavailable.
        """
        entry = self._entries.get(coordinates)
        if entry is None:
            return None
        number, offset = entry.record
        partition = (self._settings.dlq_topic, number)
        with LogReader(self._settings, "dlq") as reader:
            messages = list(reader.read({partition: (offset, offset + 1)}))
        for message in messages:
            letter = dead_letters.decode(message.key(), message.value(), message.headers())
            if letter.coordinates == coordinates:
                return letter
        return None

    def note_replay(self, coordinates: Coordinates, token: str) -> None:
        """Count a letter as replayed before the note in the topic is read."""
        self.replayed[coordinates] = token

    def _start(self, reader: LogReader, partition: Partition) -> int:
        """The offset to read on from; forgets the letters that the topic no longer holds."""
        position = self._positions.get(partition, 0)
        first, end = reader.ends(partition, position)
        if partition not in self._positions or end < position:  # new, or created again
            position, first = max(first, end - NEWEST), end
        self._entries = {
            place: entry
            for place, entry in self._entries.items()
            if entry.record[0] != partition[1] or entry.record[1] >= first
        }
        return position

    def _add(self, message: Any) -> None:
        headers = message.headers()
        self._positions[message.topic(), message.partition()] = message.offset() + 1
        replay = dead_letters.decode_replay(headers)
        if replay is not None:
            coordinates, token = replay
            self.replayed[coordinates] = token
            return
        try:
            letter = dead_letters.decode(message.key(), None, headers)
        except BadEvent:
            return  # a record that Eddyline did not write
        record = (message.partition(), message.offset())
        self._entries.setdefault(letter.coordinates, Entry(record, message.timestamp()[1], letter))

    def _drop_oldest(self) -> None:
        if len(self._entries) > MOST:
            newest = sorted(self._entries.values(), key=lambda entry: entry.place)[-MOST:]
            self._entries = {entry.letter.coordinates: entry for entry in newest}
        if len(self.replayed) > 2 * MOST:
            self.replayed = {
                place: token for place, token in self.replayed.items() if place in self._entries
            }
