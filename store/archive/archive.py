"""Reads and extends the Parquet archive of an interactions topic."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from core.errors import ArchiveError
from models import disk
from store.archive import layout, listing, publish
from store.archive.layout import Range
from store.archive.reading import Columns, first_offset_at, read_file
from store.archive.schema import OFFSET_RANGE, READ_ROWS, SCHEMA, TOPIC_ID
from store.archive.storage import Storage


class Archive:
    """The archive at `url`: a folder, or s3://bucket/prefix.

    The constructor raises ConfigurationError for a URL of an unknown kind and reads nothing. Every
    method raises ArchiveError when files cannot be listed, read or written.
    """

    def __init__(self, url: str, filesystem: pafs.FileSystem | None = None) -> None:
        """`filesystem`: where the path `url` lies, when it is not named by the URL."""
        self.storage = Storage(url, filesystem)
        self.on_step: publish.OnStep = publish.no_step

    def topics(self) -> list[str]:
        """The topics of which the archive has any file."""
        prefix = len(self.storage.root.rstrip("/")) + 1
        return sorted(
            {
                unquote(file.path[prefix:].split("/")[0])
                for file in layout.parse_paths(self._list(self.storage.root, recursive=True))
            }
        )

    def ranges(self, topic: str) -> dict[int, list[Range]]:
        """The files of each partition in offset order, without those that larger ones replace.

        Raises ArchiveError naming files that overlap or leave a gap.
        """
        folder = layout.topic_folder(self.storage.root, topic)
        chains = listing.read(self.storage, folder, recursive=True).chains
        return {partition: chain.files for partition, chain in chains.items()}

    def position(self, topic: str, partition: int) -> int:
        """The first offset of a partition that the archive does not have yet; 0 without files."""
        files = self._partition_ranges(topic, partition)
        return files[-1].next if files else 0

    def positions(self, topic: str) -> dict[int, int]:
        """`position` of every partition that has files."""
        return {partition: files[-1].next for partition, files in self.ranges(topic).items()}

    def topic_id(self, topic: str, partition: int) -> str | None:
        """The id of the topic from which the partition's last file was written.

        None if there is no file, or its writer did not know the id.
        """
        files = self._partition_ranges(topic, partition)
        if not files:
            return None
        try:
            schema = pq.read_schema(files[-1].path, filesystem=self.storage.filesystem)
        except (OSError, pa.ArrowException) as error:
            raise ArchiveError(
                f"{files[-1].path} cannot be read: {self.storage.text_of(error)}"
            ) from None
        metadata = schema.metadata or {}
        return metadata[TOPIC_ID].decode() if TOPIC_ID in metadata else None

    def holds_rows(self, topic: str, partition: int, below: int | None = None) -> bool:
        """Whether there is any row of this partition (at an offset less than `below`).

        Ranges may be empty.
        """
        end = self.position(topic, partition) if below is None else below
        rows = self._rows(topic, partition, 0, end, Columns(["offset"]))
        return next(rows, None) is not None

    def first_offset_at(self, topic: str, partition: int, time: float) -> int:
        """The first offset whose record has the broker time `time` (seconds since 1970) or later.

        The position where there is none. Of older files only the footers are read.
        """
        files = self._partition_ranges(topic, partition)
        for file in files:
            try:
                offset = first_offset_at(self.storage.filesystem, file, time)
            except (OSError, pa.ArrowException, ValueError) as error:
                if file in self._partition_ranges(topic, partition):
                    raise self._not_readable(file, error) from None
                return self.first_offset_at(topic, partition, time)  # it was merged meanwhile
            if offset is not None:
                return offset
        return files[-1].next if files else 0

    def append(
        self,
        topic: str,
        partition: int,
        first: int,
        end: int,
        rows: pa.Table,
        topic_id: str | None = None,
    ) -> None:
        """Publish `rows` (SCHEMA, in offset order) as the range [first, end), whole or not at all.

        Raises Overtaken when `first` is not the archive's position any more: another process has
        archived these offsets.
        """
        offsets = rows.column("offset")
        fits = first < end and (
            not rows.num_rows or first <= offsets[0].as_py() <= offsets[-1].as_py() < end
        )
        if not fits or not rows.schema.equals(SCHEMA):
            raise ValueError(f"rows do not fit the archive's schema or the range [{first}, {end})")
        metadata = {OFFSET_RANGE: f"{first}-{end}".encode()}
        if topic_id:
            metadata[TOPIC_ID] = topic_id.encode()
        data = _encode(rows.replace_schema_metadata(metadata))
        folder = layout.partition_folder(self.storage.root, topic, partition)
        target = publish.Target(folder, first, end)
        position = partial(self.position, topic, partition)
        try:
            if self.storage.is_local:
                publish.publish_local(target, data, position, self.on_step)
            else:
                publish.publish_remote(
                    self.storage.filesystem, target, data, position, self.on_step
                )
        except OSError as error:
            if self.storage.is_local and disk.is_full(error):
                free = disk.free_bytes(Path(target.folder))
                raise ArchiveError(
                    f"no space for {target.path}: it needs {len(data):,} bytes, and "
                    f"{free:,} are free; nothing of it was kept. "
                    "Free space and start archive again: it goes on at this range"
                ) from None
            raise ArchiveError(
                f"cannot write {target.path}: {self.storage.text_of(error)}"
            ) from None

    def recover(self, topic: str, partition: int) -> None:
        """Finish or remove what a crashed writer left; called by the partition's new writer."""
        folder = layout.partition_folder(self.storage.root, topic, partition)
        try:
            if self.storage.is_local:
                publish.recover_local(folder, partial(self.position, topic, partition))
            else:
                publish.recover_remote(self.storage.filesystem, self._list(folder))
        except OSError as error:
            raise ArchiveError(f"cannot clean up {folder}: {self.storage.text_of(error)}") from None

    def read(
        self,
        topic: str,
        upto: Mapping[int, int] | None = None,
        columns: Sequence[str] | None = None,
        start: Mapping[int, int] | None = None,
        encoded: Sequence[str] = (),
    ) -> Iterator[pa.Table]:
        """Tables of at most READ_ROWS rows, partition by partition, in offset order.

        `upto`: partition -> the offset before which to stop; other partitions are not read (None:
        all rows of all partitions). `start`: partition -> the first offset to read. `encoded`: text
        columns to read as dictionaries. Only one table is in memory. Raises ArchiveError, at once
        for an offset in `upto` that the archive does not reach, later for a file that cannot be
        read.
        """
        if upto is None:
            ends = self.positions(topic)
        else:
            ends = dict(upto)
            self.files_below(topic, ends)  # raises where the archive does not reach
        selected = Columns(SCHEMA.names if columns is None else list(columns), list(encoded))
        return (
            table
            for partition, high in sorted(ends.items())
            for table in self._rows(
                topic, partition, (start or {}).get(partition, 0), high, selected
            )
        )

    def files_below(self, topic: str, ends: Mapping[int, int]) -> list[Range]:
        """The files with offsets below `ends` (partition -> offset), of its partitions alone.

        Raises ArchiveError for an offset that the archive does not reach.
        """
        below: list[Range] = []
        for partition, end in ends.items():
            files = self._partition_ranges(topic, partition)
            reached = files[-1].next if files else 0
            if end > reached:
                raise ArchiveError(
                    f"partition {partition} of {topic} is archived up to offset {reached}, "
                    f"not {end}; run `python -m streams archive --until-idle` first"
                )
            below += [file for file in files if file.overlaps(0, end)]
        return below

    def _rows(
        self, topic: str, partition: int, low: int, high: int, columns: Columns
    ) -> Iterator[pa.Table]:
        """The rows of a partition at the offsets [low, high).

        A file that `store.archive.compaction` removes meanwhile is continued in the file that
        replaces it, after the rows that were yielded before.
        """
        files = deque(self._overlapping(topic, partition, low, high))
        skip = 0
        while files:
            file, before = files.popleft(), skip
            try:
                for table in read_file(self.storage.filesystem, file, low, high, columns):
                    remaining = table.slice(before)
                    before -= min(before, table.num_rows)
                    if remaining.num_rows:
                        skip += remaining.num_rows
                        yield remaining
                skip = 0
            except (OSError, pa.ArrowException, KeyError, ValueError) as error:
                low = max(low, file.first)
                newest = self._overlapping(topic, partition, low, high)
                if file in newest:
                    raise self._not_readable(file, error) from None
                files = deque(newest)

    def _not_readable(self, file: Range, error: Exception) -> ArchiveError:
        return ArchiveError(
            f"{file.path} cannot be read: {self.storage.text_of(error)}; restore it from a "
            f"backup, or remove it and all later files of its partition and archive again "
            f"while the log still holds these offsets"
        )

    def _overlapping(self, topic: str, partition: int, low: int, high: int) -> list[Range]:
        files = self._partition_ranges(topic, partition)
        return [file for file in files if file.overlaps(low, high)]

    def _partition_ranges(self, topic: str, partition: int) -> list[Range]:
        folder = layout.partition_folder(self.storage.root, topic, partition)
        return listing.read(self.storage, folder).chain(partition).files

    def _list(self, folder: str, recursive: bool = False) -> list[str]:
        """The paths of all files in `folder`."""
        return [info.path for info in self.storage.files(folder, recursive)]


def _encode(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows, sink, compression="zstd", row_group_size=READ_ROWS, write_page_checksum=True
    )
    return sink.getvalue()
