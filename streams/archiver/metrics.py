"""What the archive process counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

ROWS = Counter("eddyline_archive_rows", "Messages archived", ["kind"])
FILES = Counter("eddyline_archive_files", "Archive files published")
BYTES = Counter("eddyline_archive_buffered_bytes", "Bytes of rows before compression")
OVERTAKEN = Counter(
    "eddyline_archive_overtaken", "Buffers dropped because another process had archived their range"
)
POSITION = Gauge("eddyline_archive_position", "Next offset to archive", ["partition"])
BUFFERED = Gauge("eddyline_archive_buffered_rows", "Rows in buffers that are not published yet")
