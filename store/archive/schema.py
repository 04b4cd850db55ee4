"""The columns of the archive's files."""

from __future__ import annotations

import pyarrow as pa

SCHEMA = pa.schema(
    [
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        # seconds since 1970, as the broker stamped the record
        pa.field("broker_time", pa.float64(), nullable=False),
        pa.field("event_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("event_type", pa.string()),
        pa.field("timestamp", pa.float64()),  # seconds since 1970, as the event says
        pa.field("value", pa.float64()),
        pa.field("use_case", pa.string()),
        pa.field("recommendation_id", pa.string()),
        pa.field("context", pa.string()),  # JSON text
        # "code: reason" of a message that is no valid event; the event's fields are then null
        pa.field("error", pa.string()),
        pa.field("raw", pa.binary()),  # the first bytes of such a message
        # whether the message was longer; the dead-letter topic has the whole
        pa.field("raw_truncated", pa.bool_()),
    ]
)

READ_ROWS = 65_536
"""Rows of a row group, and of a table that `Archive.read` yields: about 10 MB in memory."""
TOPIC_ID = b"eddyline.topic_id"
"""Metadata key of a file: the topic's id, by which a topic that was created anew is recognised."""
OFFSET_RANGE = b"eddyline.range"
"""Metadata key of a file: b"<first>-<next>", from which the file name of a claim follows."""
