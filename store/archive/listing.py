"""Lists the files of the archive while others write and merge them."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pyarrow.fs as pafs

from core.errors import ArchiveError
from store.archive import layout
from store.archive.layout import Chain, Range
from store.archive.storage import Storage


class Listing(NamedTuple):
    """The files of a folder.

    `chains`: partition -> its chain. `infos`: path -> what is known of a file, hidden ones too.
    """

    chains: dict[int, Chain]
    infos: dict[str, pafs.FileInfo]

    def chain(self, partition: int) -> Chain:
        """The chain of a partition, which may have no files."""
        return self.chains.get(partition, Chain([], []))


def read(storage: Storage, folder: str, recursive: bool = False) -> Listing:
    """List `folder`. Raises ArchiveError naming files that overlap or leave a gap.

    A listing is not made at one instant: of two files that a writer publishes meanwhile it may
    have the later one only. The next listing has both, so a gap counts if it is still there.
    """
    files: list[Range] = []
    while True:
        before = files
        infos = {info.path: info for info in storage.files(folder, recursive)}
        files = sorted(layout.parse_paths(infos))
        by_partition = itertools.groupby(files, lambda file: file.partition)
        try:
            chains = {partition: layout.chain(ranges) for partition, ranges in by_partition}
        except ArchiveError:
            if files == before:
                raise
        else:
            return Listing(chains, infos)
