"""Writes what Redis and the archive hold as the files that `--items` and `--events` read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from core.codec import encode_json
from core.deletions import IdHasher
from core.errors import ConfigurationError
from core.settings import Settings
from core.types import Item, User
from store.archive.archive import Archive
from store.state.apply import deletions
from store.state.entities import catalogue, users
from store.state.shards import Shards
from training.command_options import ExportKind
from training.data import events


def export(settings: Settings, kind: ExportKind, output: Path, since: float = -math.inf) -> int:
    """Write everything of one kind to `output`, a new file; returns the number of rows.

    Items and users: JSON lines, as they are in Redis. Events: a Parquet file of all that the
    archive holds and training counts, so without duplicates and events of deleted users, and with
    a record time from `since` (seconds since 1970) on. Raises ConfigurationError, StoreError,
    ArchiveError.
    """
    suffix = ".parquet" if kind is ExportKind.events else ".jsonl"
    if output.suffix != suffix:
        raise ConfigurationError(f"{output}: {kind} are written to a file named *{suffix}")
    if since > -math.inf and kind is not ExportKind.events:
        raise ConfigurationError(f"{kind} have no time: --since is for events")
    if output.exists():
        raise ConfigurationError(f"{output} exists; name a new file")
    unfinished = output.with_name(f".{output.name}.unfinished")
    try:
        rows = _write(settings, kind, unfinished, since)
        unfinished.replace(output)
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {error.strerror}") from None
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _write(settings: Settings, kind: ExportKind, file: Path, since: float) -> int:
    with Shards(settings) as shards:
        if kind is ExportKind.items:
            return _write_lines(catalogue.changes(shards.first).items, file)
        if kind is ExportKind.users:
            return _write_lines(_each_once(users.profiles(shards)), file)
        deleted = deletions.users(shards, IdHasher(settings.deletion_salt))
    archive, topic = Archive(settings.archive_url), settings.interactions_topic
    tables, _ = events.from_archive(
        archive, topic, archive.positions(topic), settings.dedup_window, deleted, since
    )
    rows = 0
    with pq.ParquetWriter(file, events.SCHEMA) as writer:
        for table in tables:
            writer.write_table(table)
            rows += table.num_rows
    return rows


def _write_lines(entries: Iterable[Item | User], file: Path) -> int:
    rows = 0
    with file.open("wb") as lines:
        for entry in entries:
            lines.write(encode_json(entry) + b"\n")
            rows += 1
    return rows


def _each_once(profiles: Iterator[User]) -> Iterator[User]:
    """The profiles without those that a scan returned before."""
    seen: set[str] = set()
    for profile in profiles:
        if profile.user_id not in seen:
            seen.add(profile.user_id)
            yield profile
