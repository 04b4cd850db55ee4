"""Remembers in a file how far an import came, so that `--resume` goes on after a kill."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from core.codec import encode_json
from core.contract import problems
from core.errors import ConfigurationError
from core.settings import Settings
from store.tables.reader import Reader
from streams.importers.plan import Plan

CHECKPOINT = 50_000
"""Messages between two waits for Kafka's acknowledgement, after which the progress is saved: what
a resumed import sends again at most. It is half the default DEDUP_WINDOW, so that a message sent
twice counts once.
"""
CHECKPOINT_S = 10.0
"""Most seconds from one checkpoint to the next message that makes one."""


class Progress(msgspec.Struct, frozen=True):
    """How far an import came.

    `source`: fingerprint of what it reads; `options`: digest of what decides which messages it
    sends; `now`: the time by which it checks events; `acknowledged`: messages, from the first,
    that Kafka has acknowledged.
    """

    source: str
    options: str
    now: float
    acknowledged: int = 0


class Checkpoints:
    """Saves the progress of an import whenever Kafka has acknowledged what was sent so far."""

    def __init__(self, path: Path, progress: Progress, flush: Callable[[], None]) -> None:
        """`flush` waits for the acknowledgements, and raises where one fails."""
        self._path, self._progress, self._flush = path, progress, flush
        self._sent, self._saved_at = 0, time.monotonic()
        save(path, progress)

    def add(self, sent: int) -> None:
        """Count messages that were sent; saves from time to time."""
        self._sent += sent
        if self._sent >= CHECKPOINT or time.monotonic() - self._saved_at >= CHECKPOINT_S:
            self.save()

    def save(self) -> None:
        """Wait for the acknowledgements and save the progress. Raises LogUnavailable."""
        self._flush()
        self._progress = msgspec.structs.replace(
            self._progress, acknowledged=self._progress.acknowledged + self._sent
        )
        self._sent, self._saved_at = 0, time.monotonic()
        save(self._path, self._progress)

    def finish(self) -> None:
        """Wait for the acknowledgements and remove the file: nothing is left to resume.

        Raises LogUnavailable.
        """
        self._flush()
        self._path.unlink(missing_ok=True)


def path_beside(rejects: Path) -> Path:
    """The progress file of the import that writes `rejects`."""
    return rejects.with_suffix(".progress.json")


def load(path: Path) -> Progress:
    """The progress in `path`. Raises ConfigurationError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Progress)
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is nothing to resume: {path} does not exist, as after an import that came to "
            f"its end; without --resume all rows are sent"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({problems.in_words(error, noun='file')}): delete it, and "
            f"import without --resume"
        ) from None


def save(path: Path, progress: Progress) -> None:
    """Replace the file at once: a kill leaves the old one or the new one.

    Raises ConfigurationError.
    """
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(encode_json(progress) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"the progress cannot be saved to {path} ({error.strerror}): name a file in a folder "
            f"that can be written by --rejects"
        ) from None


def require_same(path: Path, before: Progress, source: str, options: str) -> None:
    """Raises ConfigurationError where the earlier import was another one."""
    if before.source != source:
        raise ConfigurationError(
            f"{path} belongs to an import of {before.source}, not of {source}: "
            f"import without --resume, or name the --rejects file of that import"
        )
    if before.options != options:
        raise ConfigurationError(
            f"{path} belongs to an import with other options or event types: give the same "
            f"options, or import without --resume"
        )


def digest(settings: Settings, plan: Plan, reader: Reader) -> str:
    """What decides which messages are sent, and in which order."""
    parts = (
        reader.mapping,
        plan.reading,
        plan.min_value,
        plan.default_timestamp,
        plan.sort,
        plan.limit,
        settings.dedup_window,
        sorted(settings.use_cases.event_types),
        sorted(settings.use_cases.by_name),
    )
    return hashlib.sha256(encode_json(parts)).hexdigest()[:16]
