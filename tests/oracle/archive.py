"""Compares the archive with the log: one row for each record, in order, in consecutive files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from core import codec
from core.errors import BadEvent
from core.settings import Settings
from tests.oracle.records import Record, RecordedLog

_NAME = re.compile(r"(\d{20})-(\d{20})\.parquet")
_FIELDS = (
    "event_id",
    "user_id",
    "item_id",
    "event_type",
    "timestamp",
    "value",
    "use_case",
    "recommendation_id",
)
_RAW_BYTES = 4096


def archive_differences(
    settings: Settings, logs: RecordedLog, folder: Path | None = None
) -> list[str]:
    """The differences between the archive and the log of interactions, up to the log's end.

    `folder`: of the archive (None: that of the settings).
    """
    topic = settings.interactions_topic
    folder = Path(settings.archive_url) if folder is None else folder
    differences: list[str] = []
    for partition in logs.partitions(topic):
        rows, end, problems = _read(folder / topic / f"partition={partition[1]}")
        records = logs.of(partition)
        differences += problems
        if end < logs.after_last(partition):
            differences.append(
                f"archive {partition}: reaches {end}, the log's last record ends at "
                f"{logs.after_last(partition)}"
            )
        offsets, expected = [row["offset"] for row in rows], [record.offset for record in records]
        if offsets != expected:
            missing, surplus = (
                sorted(set(expected) - set(offsets)),
                sorted(set(offsets) - set(expected)),
            )
            differences.append(
                f"archive {partition}: {len(missing)} records missing {missing[:5]}, "
                f"{len(surplus)} surplus rows {surplus[:5]}"
            )
            continue
        wrong = [
            record.offset
            for row, record in zip(rows, records, strict=True)
            if row != _row(settings, record)
        ]
        if wrong:
            differences.append(
                f"archive {partition}: {len(wrong)} rows differ from their records, at "
                f"offsets {wrong[:5]}"
            )
    return differences


def _read(folder: Path) -> tuple[list[dict[str, Any]], int, list[str]]:
    """The rows of a partition in the order of its files, the end of its last range, and problems
    of the ranges.
    """
    files = sorted(
        (int(match[1]), int(match[2]), path)
        for path in folder.glob("*.parquet")
        if (match := _NAME.fullmatch(path.name))
    )
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    end = files[0][0] if files else 0
    for first, next_, path in files:
        if first != end:
            problems.append(
                f"archive {folder.name}: {path.name} follows a range that ends at {end}"
            )
        file_rows = pq.ParquetFile(path).read().to_pylist()
        if any(not first <= row["offset"] < next_ for row in file_rows):
            problems.append(f"archive {folder.name}: {path.name} holds rows outside of its range")
        rows += file_rows
        end = next_
    return rows, end, problems


def _row(settings: Settings, record: Record) -> dict[str, Any]:
    """The row of a record."""
    row: dict[str, Any] = {
        "partition": record.partition,
        "offset": record.offset,
        "broker_time": record.time,
    }
    try:
        event = codec.decode_interaction(
            record.value, record.time, settings.use_cases, settings.tolerance
        )
    except BadEvent as bad:
        value = record.value or b""
        error = f"{bad.code}: {bad}".encode("utf-8", "replace").decode()
        empty = dict.fromkeys((*_FIELDS, "context"))
        return (
            row
            | empty
            | {"error": error, "raw": value[:_RAW_BYTES], "raw_truncated": len(value) > _RAW_BYTES}
        )
    context = bytes(event.context).decode("utf-8", "replace") if event.context else None
    fields = {name: getattr(event, name) for name in _FIELDS}
    return row | fields | {"context": context, "error": None, "raw": None, "raw_truncated": None}
