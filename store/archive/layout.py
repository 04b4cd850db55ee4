"""The Parquet archive of an interactions topic: where its files lie, how far it reaches, and how to
read it.

    <url>/<topic>/partition=<p>/<first:020d>-<next:020d>.parquet        rows of the offsets first <= offset < next

A file's range may hold fewer rows than offsets: Kafka itself leaves gaps (control records,
compaction). The ranges of a partition follow each other without a gap, so the archive's position,
the next offset it wants, is read from the names alone. `store.archive.publish` puts files there
such that no two ever overlap. Names that begin with a dot belong to a writer at work and are never
read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, unquote

import msgspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from core.errors import ArchiveError, ConfigurationError
from core.redaction import is_plain, reason, shown_url
from models import disk
from store.archive import publish as archive_publish

READ_ROWS = 65_536
"""Rows in one table that `read` yields: about 10 MB in memory."""

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
        pa.field("timestamp", pa.float64()),  # seconds since 1970, the event's own time
        pa.field("value", pa.float64()),
        pa.field("use_case", pa.string()),
        pa.field("recommendation_id", pa.string()),
        pa.field("context", pa.string()),  # JSON text
        # "code: reason" of a message that is no event; all fields above but the first three are
        # then null
        pa.field("error", pa.string()),
        pa.field("raw", pa.binary()),  # the first bytes of such a message
        # whether it had more; the whole is in the dead-letter topic
        pa.field("raw_truncated", pa.bool_()),
    ]
)

_NAME = re.compile(r"(\d{20})-(\d{20})\.parquet")
TOPIC_ID = b"eddyline.topic_id"
"""Key in a file's metadata: the id that the broker gave the topic, so that a topic created anew is
noticed.
"""


class Range(msgspec.Struct, frozen=True, order=True):
    """One file: it holds every message of `partition` with first <= offset < next."""

    partition: int
    first: int
    next: int
    path: str


class Archive:
    """The archive at `url`: a folder, or s3://bucket/prefix. Nothing is touched until a method is
    called.

    Raises ConfigurationError for a URL of an unknown kind; every method raises ArchiveError when
    files cannot be listed or read.
    """

    def __init__(self, url: str, filesystem: pafs.FileSystem | None = None) -> None:
        self._url = url
        self._filesystem, self._root = (filesystem, url) if filesystem is not None else _open(url)
        self.on_step: archive_publish.OnStep = _ignore_step
        self._is_local = isinstance(self._filesystem, pafs.LocalFileSystem)

    def ranges(self, topic: str) -> dict[int, list[Range]]:
        """The files of each partition in offset order.

        Raises ArchiveError naming the files that overlap or leave a hole.
        """
        found: dict[int, list[Range]] = {}
        for info in self._list(f"{self._root}/{quote(topic, safe='')}", recursive=True):
            folder, _, name = info.path.rpartition("/")
            match = _NAME.fullmatch(name)
            partition = folder.rpartition("/partition=")[2]
            if match and partition.isdigit():
                found.setdefault(int(partition), []).append(
                    Range(int(partition), int(match[1]), int(match[2]), info.path)
                )
        return {partition: _contiguous(files) for partition, files in sorted(found.items())}

    def position(self, topic: str, partition: int) -> int:
        """The first offset that the archive does not hold yet: 0 when it holds nothing of this
        partition.
        """
        files = self._partition_ranges(topic, partition)
        return files[-1].next if files else 0

    def positions(self, topic: str) -> dict[int, int]:
        """`position` of every partition that the archive holds anything of."""
        return {partition: files[-1].next for partition, files in self.ranges(topic).items()}

    def topic_id(self, topic: str, partition: int) -> str | None:
        """The id of the topic that the partition's last file was written from, where its writer
        knew it.
        """
        files = self._partition_ranges(topic, partition)
        if not files:
            return None
        try:
            metadata = pq.read_schema(files[-1].path, filesystem=self._filesystem).metadata or {}
        except (OSError, pa.ArrowException) as error:
            raise ArchiveError(
                f"{files[-1].path} cannot be read: {reason(error, self._url)}"
            ) from None
        return metadata[TOPIC_ID].decode() if TOPIC_ID in metadata else None

    def holds_rows(self, topic: str, partition: int, below: int | None = None) -> bool:
        """Whether there is any message of this partition (at an offset less than `below`).

        Ranges may be empty.
        """
        for file in self._partition_ranges(topic, partition):
            if below is not None and file.first >= below:
                return False
            if (
                next(
                    self._read_file(file, 0, file.next if below is None else below, ["offset"], ()),
                    None,
                )
                is not None
            ):
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
        metadata = {archive_publish.RANGE: f"{first}-{end}".encode()} | (
            {TOPIC_ID: topic_id.encode()} if topic_id else {}
        )
        sink = pa.BufferOutputStream()
        pq.write_table(
            rows.replace_schema_metadata(metadata),
            sink,
            compression="zstd",
            row_group_size=READ_ROWS,
            write_page_checksum=True,
        )
        data = sink.getvalue()
        target = archive_publish.Target(self._folder(topic, partition), first, end)
        position = partial(self.position, topic, partition)
        try:
            if self._is_local:
                archive_publish.publish_local(target, data, position, self.on_step)
            else:
                archive_publish.publish_remote(
                    self._filesystem, target, data, position, self.on_step
                )
        except OSError as error:
            if self._is_local and disk.is_full(error):
                free = disk.free_bytes(Path(target.folder))
                raise ArchiveError(
                    f"no space for {target.path}: it needs {len(data):,} bytes, and "
                    f"{free:,} are free; nothing of it was kept. "
                    "Free space and start archive again: it goes on at this range"
                ) from None
            raise ArchiveError(f"cannot write {target.path}: {reason(error, self._url)}") from None

    def recover(self, topic: str, partition: int) -> None:
        """Called by a process that becomes a partition's writer: finish or remove what a crashed
        one left behind.
        """
        folder = self._folder(topic, partition)
        try:
            if self._is_local:
                archive_publish.recover_local(folder, partial(self.position, topic, partition))
            else:
                archive_publish.recover_remote(
                    self._filesystem, [info.path for info in self._list(folder)]
                )
        except OSError as error:
            raise ArchiveError(f"cannot clean up {folder}: {reason(error, self._url)}") from None

    def read(
        self,
        topic: str,
        upto: Mapping[int, int] | None = None,
        columns: Sequence[str] | None = None,
        start: Mapping[int, int] | None = None,
        encoded: Sequence[str] = (),
    ) -> Iterator[pa.Table]:
        """Rows as tables of at most READ_ROWS rows: partition by partition, in offset order within
        each.

        `upto`: partition -> the offset before which to stop; partitions it does not name are not
        read (None: everything). `start`: partition -> the first offset wanted. `encoded`: text
        columns that come as dictionaries. Memory is bounded by one table. Raises ArchiveError for
        an offset in `upto` that the archive does not reach, and for a file that cannot be read.
        """
        ranges = self.ranges(topic)
        for partition, limit in (upto or {}).items():
            reached = ranges[partition][-1].next if partition in ranges else 0
            if limit > reached:
                raise ArchiveError(
                    f"partition {partition} of {topic} is archived up to offset {reached}, "
                    f"not {limit}; "
                    "run `python -m streams archive --until-idle` first"
                )
        for partition, files in ranges.items():
            if upto is not None and partition not in upto:
                continue
            low, high = (
                (start or {}).get(partition, 0),
                files[-1].next if upto is None else upto[partition],
            )
            for file in files:
                if file.next > low and file.first < high:
                    yield from self._read_file(file, low, high, columns, encoded)

    def _read_file(
        self,
        file: Range,
        low: int,
        high: int,
        columns: Sequence[str] | None,
        encoded: Sequence[str],
    ) -> Iterator[pa.Table]:
        cut = file.first < low or file.next > high
        wanted = list(columns) if columns is not None else SCHEMA.names
        loaded = wanted if not cut or "offset" in wanted else [*wanted, "offset"]
        try:
            with pq.ParquetFile(
                file.path,
                filesystem=self._filesystem,
                read_dictionary=list(encoded),
                page_checksum_verification=True,
            ) as parquet:
                for batch in parquet.iter_batches(READ_ROWS, columns=loaded):
                    table = pa.Table.from_batches([batch])
                    if cut:
                        offsets = table.column("offset").to_numpy()
                        begin, end = (int(offsets.searchsorted(limit)) for limit in (low, high))
                        table = table.slice(begin, max(0, end - begin))
                    if table.num_rows:
                        yield table.select(wanted).replace_schema_metadata(None)
        except (OSError, pa.ArrowException, KeyError) as error:
            raise ArchiveError(
                f"{file.path} cannot be read: {reason(error, self._url)}; restore it from a "
                f"backup, or remove it and all later files "
                "of its partition and archive again while the log still holds these offsets"
            ) from None

    def _partition_ranges(self, topic: str, partition: int) -> list[Range]:
        named = [
            (_NAME.fullmatch(info.base_name), info.path)
            for info in self._list(self._folder(topic, partition))
        ]
        return _contiguous(
            [Range(partition, int(match[1]), int(match[2]), path) for match, path in named if match]
        )

    def _folder(self, topic: str, partition: int) -> str:
        return f"{self._root}/{quote(topic, safe='')}/partition={partition}"

    def _list(self, folder: str, recursive: bool = False) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(folder, allow_not_found=True, recursive=recursive)
        try:
            return [
                info
                for info in self._filesystem.get_file_info(selector)
                if info.type == pafs.FileType.File
            ]
        except OSError as error:
            raise ArchiveError(
                f"cannot list {folder}: {reason(error, self._url)}; check ARCHIVE_URL"
            ) from None

    def topics(self) -> list[str]:
        """The topics that the archive holds anything of."""
        prefix = len(self._root.rstrip("/")) + 1
        return sorted(
            {
                unquote(info.path[prefix:].split("/")[0])
                for info in self._list(self._root, recursive=True)
                if _NAME.fullmatch(info.base_name)
            }
        )


def _open(url: str) -> tuple[pafs.FileSystem, str]:
    if not is_plain(url):
        raise ConfigurationError(
            f"ARCHIVE_URL={shown_url(url)} is neither a folder nor s3://bucket/prefix. In "
            f"an access key and its secret write / as %2F, "
            "+ as %2B, # as %23, ? as %3F, @ as %40; or leave both to the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    if "://" not in url:
        return pafs.LocalFileSystem(), Path(url).expanduser().absolute().as_posix()
    try:
        filesystem, path = pafs.FileSystem.from_uri(url)
    except (OSError, pa.ArrowException) as error:
        raise ConfigurationError(
            f"ARCHIVE_URL={shown_url(url)}: {reason(error, url)}; give a folder or "
            f"s3://bucket/prefix"
        ) from None
    return filesystem, path.rstrip("/")


def _contiguous(files: list[Range]) -> list[Range]:
    files.sort()
    for before, after in pairwise(files):
        if after.first < before.next:
            raise ArchiveError(
                f"{before.path} and {after.path} overlap; their common rows are equal: "
                f"remove the one that the next file does not continue"
            )
        if after.first > before.next:
            raise ArchiveError(
                f"offsets {before.next} to {after.first - 1} are missing between "
                f"{before.path} and {after.path}; "
                "restore the missing file, or remove the later ones and archive again "
                "while the log holds these offsets"
            )
    return files


def _ignore_step(_step: int) -> None:
    """Outside the tests nobody looks."""
