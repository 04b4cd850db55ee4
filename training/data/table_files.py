"""Reads a file of events or items for training, as `streams import` reads it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from core.errors import ConfigurationError, DatasetError, MissingColumns, SourceFailed
from core.redaction import masked_url
from store.tables.command_line import with_prefix
from store.tables.event_ids import EventIds
from store.tables.options import FIELDS, Kind, Options, TableFile
from store.tables.reader import Batch, open_path
from store.tables.rows import Reject

Source = str | Path | TableFile
"""A file, a folder or s3://bucket/key; a TableFile says how it is to be read."""

EVENT_ID_WINDOW = 100_000
"""Rows within which an event id counts once: the default of DEDUP_WINDOW."""

_UNSAID = Options(others_as_attributes=True)
_log = structlog.get_logger(__name__)


def valid_rows(
    source: Source, kind: Kind, skipped: Counter[str], item_type: str | None = None
) -> Iterator[Batch]:
    """The valid rows of a table; `skipped` counts the others by the code of their reason.

    An event whose id came before within EVENT_ID_WINDOW rows is skipped, as a duplicate.
    `item_type`: of items where the file names none. Raises DatasetError.
    """
    shown = masked_url(str(source))
    first: Reject | None = None
    file = source if isinstance(source, TableFile) else TableFile(source, _UNSAID)
    prefix = file.reading.prefix
    try:
        reader = open_path(file.path, _of(file.reading, kind, item_type), time.time())
    except MissingColumns as error:
        optional = [name for name in FIELDS[kind] if name not in error.fields]
        raise DatasetError(
            f"{shown} has no column {', '.join(error.fields)}; it has {', '.join(error.columns)}. "
            f"It may have {', '.join(optional)}, or follow a known public layout: give "
            f"--{prefix}map {error.fields[0]}=<column>"
        ) from None
    except (ConfigurationError, SourceFailed) as error:
        raise DatasetError(with_prefix(str(error), prefix)) from None
    rejected, ids = 0, EventIds(EVENT_ID_WINDOW)
    try:
        for batch in reader.batches():
            skipped.update(reject.code for reject in batch.rejects)
            rejected += len(batch.rejects)
            first = first or next(iter(batch.rejects), None)
            yield _without_duplicates(batch, ids, skipped)
    except SourceFailed as error:
        raise DatasetError(with_prefix(str(error), prefix)) from None
    for note in reader.notes:
        _log.info("table_note", file=shown, note=with_prefix(note, prefix))
    if first is not None:
        _log.warning(
            "table_rows_rejected",
            file=shown,
            rows=rejected,
            first_row=first.number,
            reason=with_prefix(first.reason, prefix),
        )


def _without_duplicates(batch: Batch, ids: EventIds, skipped: Counter[str]) -> Batch:
    event_ids = batch.fields.get("event_id")
    if event_ids is None:
        return batch
    rows = enumerate(zip(batch.fields["user_id"], event_ids, strict=True))
    places = [
        place
        for place, (user_id, event_id) in rows
        if event_id is None or not ids.is_repeated(user_id, event_id)
    ]
    if len(places) == len(event_ids):
        return batch
    skipped["duplicates"] += len(event_ids) - len(places)
    return batch.rows(places)


def _of(reading: Options, kind: Kind, item_type: str | None) -> Options:
    """How a file of this kind is read; `item_type`: of items where the file names none."""
    defaults = {} if item_type is None else {"item_type": item_type}
    return msgspec.structs.replace(reading, kind=kind, defaults=defaults)
