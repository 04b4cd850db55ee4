"""Keeps a copy of the catalogue on disk, so that hidden and deleted items stay so when a process
starts while Redis is away.

The copy is a file of JSON lines in MODELS_PATH: first the time and the topic, then items and ids of
deleted items; a later line about an item replaces an earlier one. The whole file is written
(temporary file, rename) when the whole catalogue was read, or when the appended changes outgrow it:
it never holds more than twice the catalogue. Several processes may share it: all write the same
catalogue of one Redis.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from core.process.background import with_pauses
from core.types import Item

_log = structlog.get_logger(__name__)
NAME = "catalogue-snapshot.jsonl"
SLACK = 1_000
"""The whole file is written again once it has this many more appended lines than items."""
CHUNK_BYTES = 1 << 18
"""Bytes gathered before a write."""


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line: the head (`at`, seconds since 1970, and `topic`), an item, or the id of a deleted
    item; a change begins with `at` alone.
    """

    at: float | None = None
    topic: str | None = None
    item: Item | None = None
    deleted: str | None = None


class Snapshot(NamedTuple):
    """The catalogue as of `at` (seconds since 1970)."""

    at: float
    items: dict[str, Item]
    deleted: set[str]


class CatalogueSnapshot:
    """Reads and writes the file.

    If the folder cannot be written, the log names it once, and the API goes on without a copy.
    """

    def __init__(self, folder: Path, topic: str) -> None:
        """`topic`: ITEMS_TOPIC; a copy of another topic's items is not read."""
        self._path, self._topic = folder / NAME, topic
        self._appended = 0
        self._warned = False

    def load(self) -> Snapshot | None:
        """The copy; None if there is none of this topic.

        A line that a crash has cut is skipped.
        """
        try:
            with self._path.open("rb") as file:
                return self._parsed(file)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("catalogue_snapshot_not_readable", path=str(self._path), error=str(error))
            return None

    def replace(self, items: Collection[Item], deleted: Iterable[str]) -> None:
        """Write the whole catalogue."""
        temporary = self._path.with_name(f".{NAME}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb", buffering=CHUNK_BYTES) as file:
                file.writelines(_encoded([Line(at=time.time(), topic=self._topic)]))
                file.writelines(_encoded(Line(item=item) for item in with_pauses(items)))
                file.writelines(_encoded(Line(deleted=item_id) for item_id in deleted))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            self._appended = 0
        except OSError as error:
            self._warn(error)

    def append(self, items: Collection[Item], deleted: Collection[str], size: int) -> bool:
        """Add changes to a catalogue of `size` items.

        False, and nothing is written, when they outgrow it: call `replace`.
        """
        self._appended += len(items) + len(deleted)
        if self._appended > size + SLACK:
            return False
        lines = [
            Line(at=time.time()),
            *(Line(item=item) for item in items),
            *(Line(deleted=item_id) for item_id in deleted),
        ]
        try:
            with self._path.open("ab") as file:
                file.write(b"".join(_encoded(lines)))
        except OSError as error:
            self._warn(error)
        return True

    def _parsed(self, lines: Iterable[bytes]) -> Snapshot | None:
        decoder = msgspec.json.Decoder(Line)
        at, topic, items, deleted = 0.0, "", dict[str, Item](), set[str]()
        for text in lines:
            try:
                line = decoder.decode(text)
            # a crash has cut this line; another process may have appended after it
            except msgspec.DecodeError:
                continue
            at, topic = line.at or at, line.topic or topic
            if topic != self._topic:
                return None
            if line.item is not None:
                items[line.item.item_id] = line.item
                deleted.discard(line.item.item_id)
            elif line.deleted is not None:
                items.pop(line.deleted, None)
                deleted.add(line.deleted)
        return Snapshot(at, items, deleted) if topic else None

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "catalogue_snapshot_not_written",
                path=str(self._path),
                error=str(error),
                effect=(
                    "an API that starts while Redis is away shows items as they were "
                    "when the bundle was made"
                ),
            )


def merged(
    bundle_items: Collection[Item], made_at: float, snapshot: Snapshot
) -> tuple[list[Item], set[str]]:
    """The items and the deleted ids of a bundle and a snapshot together.

    `made_at`: when the bundle was made (seconds since 1970). A later snapshot alone decides. With
    an earlier one either may be the newer for an item, because a bundle reads the catalogue long
    before it is finished: an item that one of them hides or deletes is hidden or deleted.
    """
    if snapshot.at >= made_at:
        return list(snapshot.items.values()), snapshot.deleted
    items = []
    for item in bundle_items:
        other = snapshot.items.get(item.item_id)
        if item.item_id not in snapshot.deleted:
            items.append(
                item
                if other is None or other.available
                else msgspec.structs.replace(item, available=False)
            )
    return items, snapshot.deleted


def _encoded(lines: Iterable[Line]) -> Iterator[bytes]:
    for line in lines:
        yield msgspec.json.encode(line) + b"\n"
