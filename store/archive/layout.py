"""Names the archive's files and checks that they form one chain.

    <url>/<topic>/partition=<p>/<first:020d>-<next:020d>.parquet

A file holds the rows of the offsets first <= offset < next. These may be fewer than the offsets,
because Kafka leaves gaps (control records, compaction). The ranges of a partition follow each
other without a gap, so the archive's position, which is the next offset to archive, is known from
the names alone. `store.archive.publish` writes files such that no two of them ever overlap;
`store.archive.compaction` merges neighbours, so for a while a file may lie beside the larger one
that replaces it. The larger one is read. Names that begin with a dot belong to a writer at work and
are never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from core.errors import ArchiveError

_NAME = re.compile(r"(\d{20})-(\d{20})\.parquet")


class Range(msgspec.Struct, frozen=True, order=True):
    """One file: it holds every message of `partition` with first <= offset < next."""

    partition: int
    first: int
    next: int
    path: str

    def overlaps(self, low: int, high: int) -> bool:
        """Whether it has offsets in [low, high)."""
        return self.first < high and low < self.next


def topic_folder(root: str, topic: str) -> str:
    """The folder of one topic."""
    return f"{root}/{quote(topic, safe='')}"


def partition_folder(root: str, topic: str, partition: int) -> str:
    """The folder of one partition."""
    return f"{topic_folder(root, topic)}/partition={partition}"


def file_name(first: int, next_: int) -> str:
    """The name of the file of the offsets [first, next_)."""
    return f"{first:020d}-{next_:020d}.parquet"


def parse_paths(paths: Iterable[str]) -> list[Range]:
    """The ranges of the files at `paths`, without other paths."""
    return [file for file in map(_parse_path, paths) if file is not None]


def _parse_path(path: str) -> Range | None:
    folder, _, name = path.rpartition("/")
    match = _NAME.fullmatch(name)
    partition = folder.rpartition("/partition=")[2]
    if match is None or not partition.isdigit():
        return None
    return Range(int(partition), int(match[1]), int(match[2]), path)


class Chain(NamedTuple):
    """The files of one partition: `files` in offset order, and those that larger ones replace."""

    files: list[Range]
    replaced: list[Replaced]


class Replaced(NamedTuple):
    """A file all of whose offsets are in another one, `by`."""

    file: Range
    by: Range


def chain(ranges: Iterable[Range]) -> Chain:
    """The chain of the ranges of one partition.

    Raises ArchiveError naming files that overlap or leave a gap.
    """
    files: list[Range] = []
    replaced: list[Replaced] = []
    for file in sorted(ranges, key=lambda file: (file.first, -file.next)):
        if files and file.next <= files[-1].next:
            replaced.append(Replaced(file, files[-1]))
            continue
        if files:
            _check_neighbours(files[-1], file)
        files.append(file)
    return Chain(files, replaced)


def _check_neighbours(before: Range, after: Range) -> None:
    if after.first < before.next:
        raise ArchiveError(
            f"{before.path} and {after.path} overlap; their common rows are equal: "
            f"remove the one that the next file does not continue"
        )
    if after.first > before.next:
        raise ArchiveError(
            f"offsets {before.next} to {after.first - 1} are missing between "
            f"{before.path} and {after.path}; restore the missing file, or remove the later "
            f"ones and archive again while the log holds these offsets"
        )
