"""Reads and extends the Parquet archive of an interactions topic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from core.errors import ArchiveError
from core.redaction import error_text
from models import disk
from store.archive import layout, publish
from store.archive.layout import Range
from store.archive.schema import OFFSET_RANGE, READ_ROWS, SCHEMA, TOPIC_ID
from store.archive.storage import open_url


class _Columns(NamedTuple):
    """What to read of each row."""

    names: Sequence[str]
    encoded: Sequence[str]
    """Text columns to read as dictionaries."""


class Archive:
    """The archive at `url`: a folder, or s3://bucket/prefix.

    The constructor raises ConfigurationError for a URL of an unknown kind and reads nothing. Every
    method raises ArchiveError when files cannot be listed, read or written.
    """

    def __init__(self, url: str, filesystem: pafs.FileSystem | None = None) -> None:
        """`filesystem`: where the path `url` lies, when it is not named by the URL."""
        self._url = url
        self._filesystem, self._root = (filesystem, url) if filesystem else open_url(url)
        self._is_local = isinstance(self._filesystem, pafs.LocalFileSystem)
        self.on_step: publish.OnStep = publish.no_step

    def topics(self) -> list[str]:
        """The topics of which the archive has any file."""
        prefix = len(self._root.rstrip("/")) + 1
        return sorted(
            {
                unquote(path[prefix:].split("/")[0])
                for path in self._list(self._root, recursive=True)
                if layout.parse_path(path) is not None
            }
        )

    def ranges(self, topic: str) -> dict[int, list[Range]]:
        """The files of each partition in offset order.

        Raises ArchiveError naming files that overlap or leave a gap.
        """
        files: dict[int, list[Range]] = {}
        for path in self._list(layout.topic_folder(self._root, topic), recursive=True):
            file = layout.parse_path(path)
            if file is not None:
                files.setdefault(file.partition, []).append(file)
        return {partition: layout.chain(ranges) for partition, ranges in sorted(files.items())}

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
            metadata = pq.read_schema(files[-1].path, filesystem=self._filesystem).metadata or {}
        except (OSError, pa.ArrowException) as error:
            raise ArchiveError(
                f"{files[-1].path} cannot be read: {error_text(error, self._url)}"
            ) from None
        return metadata[TOPIC_ID].decode() if TOPIC_ID in metadata else None

    def holds_rows(self, topic: str, partition: int, below: int | None = None) -> bool:
        """Whether there is any row of this partition (at an offset less than `below`).

        Ranges may be empty.
        """
        columns = _Columns(["offset"], [])
        for file in self._partition_ranges(topic, partition):
            end = file.next if below is None else below
            if file.first >= end:
                return False
            if next(self._read_file(file, 0, end, columns), None) is not None:
                return True
        return False

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
        folder = layout.partition_folder(self._root, topic, partition)
        target = publish.Target(folder, first, end)
        position = partial(self.position, topic, partition)
        try:
            if self._is_local:
                publish.publish_local(target, data, position, self.on_step)
            else:
                publish.publish_remote(self._filesystem, target, data, position, self.on_step)
        except OSError as error:
            if self._is_local and disk.is_full(error):
                free = disk.free_bytes(Path(target.folder))
                raise ArchiveError(
                    f"no space for {target.path}: it needs {len(data):,} bytes, and "
                    f"{free:,} are free; nothing of it was kept. "
                    "Free space and start archive again: it goes on at this range"
                ) from None
            raise ArchiveError(
                f"cannot write {target.path}: {error_text(error, self._url)}"
            ) from None

    def recover(self, topic: str, partition: int) -> None:
        """Finish or remove what a crashed writer left; called by the partition's new writer."""
        folder = layout.partition_folder(self._root, topic, partition)
        try:
            if self._is_local:
                publish.recover_local(folder, partial(self.position, topic, partition))
            else:
                publish.recover_remote(self._filesystem, self._list(folder))
        except OSError as error:
            raise ArchiveError(
                f"cannot clean up {folder}: {error_text(error, self._url)}"
            ) from None

    def read(
        self,
        topic: str,
        upto: Mapping[int, int] | None = None,
        columns: Sequence[str] | None = None,
        start: Mapping[int, int] | None = None,
        encoded: Sequence[str] = (),
    ) -> Iterator[pa.Table]:
        """Yields tables of at most READ_ROWS rows, partition by partition, in offset order.

        `upto`: partition -> the offset before which to stop; other partitions are not read (None:
        all rows of all partitions). `start`: partition -> the first offset to read. `encoded`: text
        columns to read as dictionaries. Only one table is in memory. Raises ArchiveError for an
        offset in `upto` that the archive does not reach, and for a file that cannot be read.
        """
        ranges = self.ranges(topic)
        for partition, limit in (upto or {}).items():
            reached = ranges[partition][-1].next if partition in ranges else 0
            if limit > reached:
                raise ArchiveError(
                    f"partition {partition} of {topic} is archived up to offset {reached}, "
                    f"not {limit}; run `python -m streams archive --until-idle` first"
                )
        selected = _Columns(SCHEMA.names if columns is None else list(columns), list(encoded))
        for partition, files in ranges.items():
            if upto is not None and partition not in upto:
                continue
            low = (start or {}).get(partition, 0)
            high = files[-1].next if upto is None else upto[partition]
            for file in files:
                if file.overlaps(low, high):
                    yield from self._read_file(file, low, high, selected)

    def _read_file(self, file: Range, low: int, high: int, columns: _Columns) -> Iterator[pa.Table]:
        is_partial = file.first < low or file.next > high
        names = columns.names
        loaded = [*names, "offset"] if is_partial and "offset" not in names else names
        try:
            with pq.ParquetFile(
                file.path,
                filesystem=self._filesystem,
                read_dictionary=columns.encoded,
                page_checksum_verification=True,
            ) as parquet:
                for batch in parquet.iter_batches(READ_ROWS, columns=loaded):
                    table = pa.Table.from_batches([batch])
                    if is_partial:
                        offsets = table.column("offset").to_numpy()
                        begin, end = (int(offsets.searchsorted(limit)) for limit in (low, high))
                        table = table.slice(begin, max(0, end - begin))
                    if table.num_rows:
                        yield table.select(names).replace_schema_metadata(None)
        except (OSError, pa.ArrowException, KeyError) as error:
            raise ArchiveError(
                f"{file.path} cannot be read: {error_text(error, self._url)}; restore it from a "
                f"backup, or remove it and all later files of its partition and archive again "
                f"while the log still holds these offsets"
            ) from None

    def _partition_ranges(self, topic: str, partition: int) -> list[Range]:
        paths = self._list(layout.partition_folder(self._root, topic, partition))
        return layout.chain(filter(None, map(layout.parse_path, paths)))

    def _list(self, folder: str, recursive: bool = False) -> list[str]:
        """The paths of all files in `folder`."""
        selector = pafs.FileSelector(folder, allow_not_found=True, recursive=recursive)
        try:
            return [
                info.path
                for info in self._filesystem.get_file_info(selector)
                if info.type == pafs.FileType.File
            ]
        except OSError as error:
            raise ArchiveError(
                f"cannot list {folder}: {error_text(error, self._url)}; check ARCHIVE_URL"
            ) from None


def _encode(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows, sink, compression="zstd", row_group_size=READ_ROWS, write_page_checksum=True
    )
    return sink.getvalue()
