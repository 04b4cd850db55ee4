"""Reads a file of events or items for training, as `streams import` reads it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import structlog

from core.errors import ConfigurationError, DatasetError, MissingColumns, SourceFailed
from core.redaction import masked_url
from store.tables.options import FIELDS, REQUIRED, Kind, Options
from store.tables.reader import Batch, open_path
from store.tables.rows import Reject

_log = structlog.get_logger(__name__)


def valid_rows(
    path: str | Path, kind: Kind, skipped: Counter[str], item_type: str | None = None
) -> Iterator[Batch]:
    """The valid rows of a table; `skipped` counts the others by the code of their reason.

    `item_type`: of items where the file names none. Further columns of items become attributes,
    unless the file follows a public layout. Raises DatasetError.
    """
    shown = masked_url(str(path))
    first: Reject | None = None
    try:
        defaults = {} if item_type is None else {"item_type": item_type}
        options = Options(kind=kind, defaults=defaults, others_as_attributes=True)
        reader = open_path(path, options, time.time())
    except MissingColumns as error:
        raise DatasetError(
            f"{shown} has no column {', '.join(error.fields)}; it has {', '.join(error.columns)}. "
            f"It needs {', '.join(REQUIRED[kind])}, may have {', '.join(FIELDS[kind])}, or follows "
            f"a known public layout"
        ) from None
    except (ConfigurationError, SourceFailed) as error:
        raise DatasetError(str(error)) from None
    try:
        for batch in reader.batches():
            skipped.update(reject.code for reject in batch.rejects)
            first = first or next(iter(batch.rejects), None)
            yield batch
    except SourceFailed as error:
        raise DatasetError(str(error)) from None
    for note in reader.notes:
        _log.info("table_note", file=shown, note=note)
    if first is not None:
        _log.warning(
            "table_rows_rejected",
            file=shown,
            rows=skipped.total(),
            first_row=first.number,
            reason=first.reason,
        )
