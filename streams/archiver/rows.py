"""Converts Kafka messages to rows of the archive.

A row is a pure function of its message, the configured event types and the tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from core.codec import decode_interaction
from core.contract.tolerance import Tolerance
from core.errors import BadEvent
from core.types import Interaction
from core.use_cases import UseCases
from store.archive.schema import SCHEMA

RAW_BYTES = 4096
"""Bytes archived of a message that is no valid event; the dead-letter topic has the whole."""


def to_batch(
    partition: int, messages: Sequence[Any], use_cases: UseCases, tolerance: Tolerance
) -> pa.RecordBatch:
    """One row for each message, valid or not, in the same order.

    `messages` (confluent_kafka.Message, without errors) belong to one partition.
    """
    times = [message.timestamp()[1] / 1000 for message in messages]
    values = [message.value() for message in messages]
    events: list[Interaction | None] = []
    errors: dict[int, str] = {}
    for index, (value, time) in enumerate(zip(values, times, strict=True)):
        try:
            events.append(decode_interaction(value, time, use_cases, tolerance))
        except BadEvent as error:
            events.append(None)
            errors[index] = f"{error.code}: {error}".encode("utf-8", "replace").decode()
    invalid: list[bytes | None] = [None] * len(values)
    for index in errors:
        invalid[index] = values[index] or b""
    # the context is not decoded, so its strings may hold bytes that are no UTF-8
    columns = {
        "partition": [partition] * len(values),
        "offset": [message.offset() for message in messages],
        "broker_time": times,
        "context": [
            bytes(event.context).decode("utf-8", "replace")
            if event is not None and event.context
            else None
            for event in events
        ],
        "error": [errors.get(index) for index in range(len(values))],
        "raw": [value if value is None else value[:RAW_BYTES] for value in invalid],
        "raw_truncated": [value if value is None else len(value) > RAW_BYTES for value in invalid],
    }
    for name in (
        "event_id",
        "user_id",
        "item_id",
        "event_type",
        "timestamp",
        "value",
        "use_case",
        "recommendation_id",
    ):
        columns[name] = [None if event is None else getattr(event, name) for event in events]
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[field.name], type=field.type) for field in SCHEMA], schema=SCHEMA
    )
