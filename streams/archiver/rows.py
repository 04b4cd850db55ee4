"""Kafka messages to rows of the archive: a pure function of each message and the configured event
types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from core.codec import decode_interaction
from core.errors import BadEvent
from core.types import Interaction
from core.use_cases import UseCases
from store.archive.layout import SCHEMA

RAW_BYTES = 4096
"""Bytes kept of a message that is no event: enough to recognise its sender.

The whole of it is in the dead-letter topic.
"""


def to_batch(partition: int, messages: Sequence[Any], use_cases: UseCases) -> pa.RecordBatch:
    """One row a message, valid or not, in their order.

    `messages` (confluent_kafka.Message) are of one partition, without errors.
    """
    times = [message.timestamp()[1] / 1000 for message in messages]
    values = [message.value() for message in messages]
    events: list[Interaction | None] = []
    errors: dict[int, str] = {}
    for index, (value, time) in enumerate(zip(values, times, strict=True)):
        try:
            events.append(decode_interaction(value, time, use_cases))
        except BadEvent as error:
            events.append(None)
            errors[index] = f"{error.code}: {error}".encode("utf-8", "replace").decode()
    bad = (
        [(index in errors, values[index] or b"") for index in range(len(values))]
        if errors
        else [(False, b"")] * len(values)
    )
    # a context is passed through unread, so its strings may hold bytes that are no UTF-8
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
        "raw": [value[:RAW_BYTES] if is_bad else None for is_bad, value in bad],
        "raw_truncated": [len(value) > RAW_BYTES if is_bad else None for is_bad, value in bad],
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
