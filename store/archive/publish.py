"""Publishes a file of the archive: whole, once, and never overlapping another file.

Kafka assigns a partition to one consumer at a time, but a process that was paused longer than its
session time-out still has its buffer when it continues. It must not publish [100, 250) after its
successor published [100, 180) and [180, 300). So the start of a range is a file name that only one
process can create:

1. Write all bytes to `.<first>-<uuid>.tmp` in the partition's folder and fsync it.
2. Claim the start: hard-link the temporary file to `.<first>.claim`. The link fails if the claim
   exists. Then another process is publishing a range with this start: finish its work by step 4 and
   raise Overtaken.
3. Check, while the claim exists, that `first` is still the archive's position. If not, a file with
   this start was published and its claim removed before: remove the own claim, raise Overtaken.
4. Hard-link the claim to `<first>-<next>.parquet`. The range is also in the file itself, so any
   process that finds a claim can do this.
5. Remove the claim and the temporary file. fsync the folder.

A claim is removed only when a file with its start exists, or by its own process in step 3. So from
step 2 to 5 one process alone decides where the range that starts at `first` ends, and by induction
the ranges of a partition form one chain. A crash after step 1 leaves a temporary file, which is
never read and which `recover_local` removes. A crash after step 2, 3 or 4 leaves a claim with all
of its data, which `recover_local` or the next publisher finishes. A paused process that continues
finds that its temporary file was removed, its start was claimed, or the position moved: each means
Overtaken.

Object stores, and file systems without hard links, have no exclusive names. There a writer checks
before and after it puts the file, and removes its own file if another one has some of its offsets
(`publish_remote`). Two exceptions follow from rows of the same offset being equal in every file:
readers ignore a file within another one's range, and the writer of the larger one keeps it. A
process killed between the put and that check may leave another overlap, which readers refuse and
the partition's next writer repairs (`recover_remote`): it keeps the chain that reaches furthest,
and removes what lies across that chain. What lies within one file of it is for
`store.archive.compaction` to remove: only one of the two may rely on either file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from core.errors import ArchiveError, Overtaken
from store.archive import layout
from store.archive.layout import Range
from store.archive.schema import OFFSET_RANGE

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

OnStep = Callable[[int], None]
"""Called with the number of each step after it; tests stop and kill a process there."""


def no_step(_step: int) -> None:
    """The OnStep of production: does nothing."""


class Target(msgspec.Struct, frozen=True):
    """The range [first, next) in a partition's folder."""

    folder: str
    first: int
    next: int

    @property
    def path(self) -> str:
        """The published file."""
        return f"{self.folder}/{layout.file_name(self.first, self.next)}"

    @property
    def claim(self) -> Path:
        """The name that only one process can create."""
        return Path(self.folder) / f".{self.first:020d}.claim"

    def overtaken(self) -> Overtaken:
        """The error of the process that came second."""
        return Overtaken(
            f"another process has archived {self.folder} from offset {self.first} on; "
            f"continue at the archive's position"
        )


def publish_local(
    target: Target, data: pa.Buffer, position: Callable[[], int], on_step: OnStep
) -> None:
    """Steps 1 to 5; `position` reads the archive's position. Raises Overtaken, OSError."""
    folder = Path(target.folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{target.first:020d}-{uuid.uuid4().hex}.tmp"
    try:
        write(temporary, data)
        on_step(1)
        try:
            os.link(temporary, target.claim)
        except FileExistsError:
            _finish(target.claim, position)
            raise target.overtaken() from None
        except FileNotFoundError:  # a successor has removed the temporary file
            raise target.overtaken() from None
        on_step(2)
        if position() != target.first:
            target.claim.unlink(missing_ok=True)
            raise target.overtaken()
        on_step(3)
        try:
            # FileExistsError: a successor found the claim and finished it
            with contextlib.suppress(FileExistsError):
                os.link(temporary, target.path)
        except FileNotFoundError:
            raise target.overtaken() from None
        on_step(4)
        target.claim.unlink(missing_ok=True)
        sync(folder)
        on_step(5)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        publish_remote(pafs.LocalFileSystem(), target, data, position, on_step)
    finally:
        temporary.unlink(missing_ok=True)


def recover_local(folder: str, position: Callable[[], int]) -> None:
    """Finish claims and remove temporary files that a crashed or paused writer left.

    Raises OSError.
    """
    for claim in Path(folder).glob(".*.claim"):
        _finish(claim, position)
    for temporary in Path(folder).glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def publish_remote(
    filesystem: pafs.FileSystem,
    target: Target,
    data: pa.Buffer,
    position: Callable[[], int],
    on_step: OnStep,
) -> None:
    """Check, put the file, check again. Raises Overtaken, OSError."""
    if position() != target.first:
        raise target.overtaken()
    on_step(1)
    # visible when complete: one put, or a finished multipart upload
    with filesystem.open_output_stream(target.path) as stream:
        stream.write(data)
    on_step(2)
    paths = [info.path for info in filesystem.get_file_info(pafs.FileSelector(target.folder))]
    if any(
        file.overlaps(target.first, target.next)
        and not (target.first <= file.first and file.next <= target.next)
        for file in layout.parse_paths(paths)
    ):
        filesystem.delete_file(target.path)
        raise target.overtaken()


def recover_remote(filesystem: pafs.FileSystem, paths: Iterable[str]) -> None:
    """Keep the chain of files that reaches furthest; remove the files that lie across it.

    `paths`: all files of the partition. Raises OSError.
    """
    files = sorted(layout.parse_paths(paths), key=lambda file: (file.first, -file.next))
    if not files:
        return
    start = files[0].first
    # offset that a chain from `start` reaches -> its last file
    last: dict[int, Range] = {}
    for file in files:
        if file.first == start or file.first in last:
            last.setdefault(file.next, file)
    furthest = end = max(last)
    chain: list[Range] = []
    while end != start:
        chain.append(last[end])
        end = chain[-1].first
    chain.reverse()
    starts = [file.first for file in chain]
    for file in files:
        beside = chain[bisect_right(starts, file.first) - 1]  # has the first offset of `file`
        if beside.next < file.next <= furthest:
            filesystem.delete_file(file.path)


def _finish(claim: Path, position: Callable[[], int]) -> None:
    """Steps 4 and 5 for the claim of another process."""
    try:
        text = (pq.read_schema(claim).metadata or {})[OFFSET_RANGE].decode()
    except FileNotFoundError:
        return
    except (KeyError, pa.ArrowException) as error:
        raise ArchiveError(f"{claim} is no file of the archive ({error!r}); remove it") from None
    first, _, end = text.partition("-")
    if position() == int(first):
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.link(claim, Target(str(claim.parent), int(first), int(end)).path)
    claim.unlink(missing_ok=True)
    sync(claim.parent)


def write(path: Path, data: pa.Buffer) -> None:
    """Write and fsync a new file. Raises OSError."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Make the names in `folder` durable; Windows cannot open a folder, and does not need to."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
