"""Merges small files of the archive: neighbours of a partition become one file.

1. Group: files of less than half of the target size, as far as they follow each other and fit into
   one file of that size. A partition's last file stays as it is: its writer may still check it.
2. Encode the rows of a group, and publish them as one file by one rename or put. From now on
   readers use it and ignore the files of the group (store.archive.layout), whose rows are the same.
3. Wait SETTLE_S, so that every reader that listed the files before step 2 has the whole list. (Only
   then does a list miss no file: it is not made at one instant.)
4. Remove the files that lie within one larger file that is at least SETTLE_S old. A reader that
   needs one of them later lists the files again and continues in the larger one
   (`Archive.read`).

A process killed at any step leaves files that readers ignore, or all files as they were; the next
compaction removes them. Nothing but a file within a larger one is ever removed, so no order of any
number of compactions loses an offset. Two of them with different targets may publish files that
overlap: each then removes its own.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import structlog

from core.errors import ArchiveError
from models import disk
from store.archive import layout, listing, publish
from store.archive.archive import Archive
from store.archive.layout import Range
from store.archive.listing import Listing
from store.archive.reading import Columns, read_file
from store.archive.schema import OFFSET_RANGE, READ_ROWS, SCHEMA, TOPIC_ID

_log = structlog.get_logger(__name__)

TARGET_BYTES = 128_000_000
"""Largest file that small ones are merged into."""
SETTLE_S = 60.0
"""Seconds from the publication of a merged file to the removal of those it replaces: longer than
any list of files takes.
"""
GROUP_BYTES = 64 * 1024 * 1024
"""Uncompressed bytes of a row group, at most: contexts may be large."""
LEFTOVER_S = 3600.0
"""Age of an unfinished file after which its writer is dead: it takes seconds."""


@dataclass(frozen=True)
class Options:
    """`target_bytes`: TARGET_BYTES. `settle_s`: SETTLE_S."""

    target_bytes: int = TARGET_BYTES
    settle_s: float = SETTLE_S


@dataclass
class Result:
    """What a compaction did. `left`: replaced files that are not old enough to be removed."""

    merged: int = 0
    into: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    removed: int = 0
    left: int = 0


class Compaction:
    """One compaction of one topic. Every method raises ArchiveError."""

    def __init__(self, archive: Archive, topic: str, options: Options | None = None) -> None:
        self._archive, self._storage, self._topic = archive, archive.storage, topic
        self._options = options or Options()
        self.result = Result()
        self.on_step = publish.no_step

    def run(self) -> Result:
        """Steps 1 to 4 for every partition."""
        partitions = list(self._archive.ranges(self._topic))
        for partition in partitions:
            self.merge(partition)
        if self.result.into:
            time.sleep(self._options.settle_s)
        for partition in partitions:
            self.remove_replaced(partition)
        return self.result

    def merge(self, partition: int) -> None:
        """Steps 1 and 2."""
        listed = self._list(partition)
        files = listed.chain(partition).files
        neighbours = groups(files, listed.infos, self._options.target_bytes)
        if not neighbours:
            return
        merged = sum(map(len, neighbours))
        before = sum(listed.infos[file.path].size for group in neighbours for file in group)
        after = sum([self._merge_files(group) for group in neighbours])
        self.result.merged += merged
        self.result.into += len(neighbours)
        self.result.bytes_before += before
        self.result.bytes_after += after
        _log.info(
            "partition_compacted",
            topic=self._topic,
            partition=partition,
            files=merged,
            into=len(neighbours),
            bytes_before=before,
            bytes_after=after,
        )

    def remove_replaced(self, partition: int) -> None:
        """Step 4."""
        listed, now = self._list(partition), time.time()
        for file, by in listed.chain(partition).replaced:
            if _age(listed.infos[by.path], now) >= self._options.settle_s:
                self._delete(file.path)
                self.result.removed += 1
            else:
                self.result.left += 1
            self.on_step(4)
        for path, info in listed.infos.items():
            if path.endswith(".compact") and _age(info, now) > LEFTOVER_S:
                self._delete(path)

    def _merge_files(self, files: list[Range]) -> int:
        """Step 2 for one group; returns the bytes of the merged file."""
        target = publish.Target(files[0].path.rpartition("/")[0], files[0].first, files[-1].next)
        try:
            data = self._encode(files, target)
        except (OSError, pa.ArrowException, KeyError) as error:
            raise ArchiveError(
                f"{files[0].path} to {files[-1].path} cannot be merged: "
                f"{self._storage.text_of(error)}; nothing was changed"
            ) from None
        try:
            self._publish(target, data)
        except OSError as error:
            cause = self._storage.text_of(error)
            if self._storage.is_local and disk.is_full(error):
                free = disk.free_bytes(Path(target.folder))
                cause = f"it needs {data.size:,} bytes, and {free:,} are free"
            raise ArchiveError(f"cannot write {target.path}: {cause}; nothing was lost") from None
        self._check_neighbours(target, files)
        return int(data.size)

    def _encode(self, files: list[Range], target: publish.Target) -> pa.Buffer:
        filesystem, sink = self._storage.filesystem, pa.BufferOutputStream()
        newest = pq.read_schema(files[-1].path, filesystem=filesystem).metadata or {}
        metadata = {OFFSET_RANGE: f"{target.first}-{target.next}".encode()}
        if TOPIC_ID in newest:  # an archive is of one topic
            metadata[TOPIC_ID] = newest[TOPIC_ID]
        with pq.ParquetWriter(
            sink, SCHEMA.with_metadata(metadata), compression="zstd", write_page_checksum=True
        ) as writer:
            for table in _row_groups(self._rows(files)):
                writer.write_table(table, READ_ROWS)
        return sink.getvalue()

    def _rows(self, files: list[Range]) -> Iterator[pa.Table]:
        columns = Columns(SCHEMA.names)
        for file in files:
            yield from read_file(self._storage.filesystem, file, file.first, file.next, columns)

    def _publish(self, target: publish.Target, data: pa.Buffer) -> None:
        if self._storage.is_local:
            temporary = Path(target.folder) / f".{target.first:020d}-{uuid.uuid4().hex}.compact"
            try:
                publish.write(temporary, data)
                self.on_step(1)
                temporary.replace(target.path)
            finally:
                temporary.unlink(missing_ok=True)
            publish.sync(Path(target.folder))
        else:
            self.on_step(1)
            with self._storage.filesystem.open_output_stream(target.path) as stream:
                stream.write(data)
        self.on_step(2)

    def _check_neighbours(self, target: publish.Target, files: list[Range]) -> None:
        """Remove the own file if another one has only some of its offsets."""
        paths = [info.path for info in self._storage.files(target.folder)]
        listed = layout.parse_paths(paths)
        across = [
            file
            for file in listed
            if file.overlaps(target.first, target.next)
            and not (target.first <= file.first and file.next <= target.next)
            and not (file.first <= target.first and target.next <= file.next)
        ]
        if across and set(files) <= set(listed):
            self._delete(target.path)
        if across:
            raise ArchiveError(
                f"{target.path} overlaps {across[0].path}, which another process wrote meanwhile; "
                f"let one compaction run at a time, then start this again"
            )

    def _list(self, partition: int) -> Listing:
        folder = layout.partition_folder(self._storage.root, self._topic, partition)
        return listing.read(self._storage, folder)

    def _delete(self, path: str) -> None:
        try:
            self._storage.filesystem.delete_file(path)
        except FileNotFoundError:  # another compaction was faster
            return
        except OSError as error:
            raise ArchiveError(
                f"cannot remove {path}: {self._storage.text_of(error)}; readers ignore it"
            ) from None


def groups(
    files: list[Range], infos: Mapping[str, pafs.FileInfo], target_bytes: int
) -> list[list[Range]]:
    """Neighbours that are to become one file (step 1); `files`: the chain of a partition."""
    grouped: list[list[Range]] = [[]]
    total = 0
    for file in files[:-1]:
        size = infos[file.path].size
        if 2 * size >= target_bytes or total + size > target_bytes:
            grouped.append([])
            total = 0
        if 2 * size < target_bytes:
            grouped[-1].append(file)
            total += size
    return [group for group in grouped if len(group) > 1]


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of READ_ROWS rows, fewer where GROUP_BYTES are reached."""
    pending: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        pending.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= READ_ROWS or size >= GROUP_BYTES:
            whole = pa.concat_tables(pending)
            yield whole.slice(0, READ_ROWS)
            pending = [whole.slice(READ_ROWS)]
            rows, size = pending[0].num_rows, pending[0].nbytes
    if rows:
        yield pa.concat_tables(pending)


def _age(info: pafs.FileInfo, now: float) -> float:
    return now - float(info.mtime.timestamp())
