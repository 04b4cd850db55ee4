"""How a file of the archive appears: whole, once, and never overlapping another, whoever else is
writing.

Kafka gives a partition to one consumer at a time, but a process that was paused past its session
time-out still holds its buffer when it continues. It must not publish [100, 250) when its successor
has published [100, 180) and [180, 300). So the start of a range is a name that can be taken only
once:

1. Write all bytes to `.<first>-<uuid>.tmp` in the partition's folder and fsync it.
2. Claim the start: hard-link the temporary file to `.<first>.claim`. The link fails if the claim
   exists: another process is publishing a range with this start; finish its work by step 4 and
   report Overtaken.
3. With the claim held, check that `first` is still the archive's position. If not, a file with this
   start was published and its claim removed before ours: drop the claim, report Overtaken.
4. Hard-link the claim's data to `<first>-<next>.parquet` (the range is in the file itself, so
   whoever finds a claim can do this).
5. Remove the claim, and the temporary file. fsync the folder.

A claim is removed only when a file with its start exists (or by its own holder in step 3). So from
step 2 to 5 one process alone decides where the range that starts at `first` ends, and by induction
the ranges of a partition form one chain. A crash after step 1 leaves a temporary file, which nobody
reads and `recover_local` removes; a crash after 2, 3 or 4 leaves a claim with all of its data,
which `recover_local` or the next publisher finishes. A paused process that continues finds its
temporary file gone, its start claimed, or the position moved; each means Overtaken.

Object stores (and file systems without hard links) have no exclusive name, so there a put is
checked before and after, and a writer that finds its range taken removes its own file
(`publish_remote`). A process killed between the put and that check leaves an overlap, which readers
refuse and the partition's next writer repairs (`recover_remote`): rows of one offset are equal in
every file, so it keeps the chain that reaches furthest and removes what that chain covers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from core.errors import ArchiveError, Overtaken

RANGE = b"eddyline.range"
"""Key in a file's metadata: b"<first>-<next>", so that whoever finds a claim knows the name it
shall have.
"""

_FINAL = re.compile(r"(\d{20})-(\d{20})\.parquet")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}

OnStep = Callable[[int], None]
"""Called after each numbered step; the tests stop and kill a process there."""


class Target(msgspec.Struct, frozen=True):
    """The range [first, next) in a partition's folder."""

    folder: str
    first: int
    next: int

    @property
    def path(self) -> str:
        """The published file."""
        return f"{self.folder}/{self.first:020d}-{self.next:020d}.parquet"

    @property
    def claim(self) -> Path:
        """The name that one process alone can hold."""
        return Path(self.folder) / f".{self.first:020d}.claim"

    def overtaken(self) -> Overtaken:
        """What a process hears that came second."""
        return Overtaken(
            f"another process has archived {self.folder} from offset {self.first} on; "
            f"continue at the archive's position"
        )


def publish_local(
    target: Target, data: pa.Buffer, position: Callable[[], int], on_step: OnStep
) -> None:
    """Steps 1 to 5 above; `position` reads the archive's. Raises Overtaken, OSError."""
    folder = Path(target.folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{target.first:020d}-{uuid.uuid4().hex}.tmp"
    try:
        _write(temporary, data)
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
            # a successor found the claim and finished it
            with contextlib.suppress(FileExistsError):
                os.link(temporary, target.path)
        except FileNotFoundError:
            raise target.overtaken() from None
        on_step(4)
        target.claim.unlink(missing_ok=True)
        _sync(folder)
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
    """Check, put, check again. Raises Overtaken, OSError."""
    if position() != target.first:
        raise target.overtaken()
    on_step(1)
    # visible when complete: one put, or a finished multipart upload
    with filesystem.open_output_stream(target.path) as stream:
        stream.write(data)
    on_step(2)
    names = [info.base_name for info in filesystem.get_file_info(pafs.FileSelector(target.folder))]
    others = [
        (int(match[1]), int(match[2]))
        for name in names
        if (match := _FINAL.fullmatch(name)) and not target.path.endswith(name)
    ]
    if any(first < target.next and target.first < end for first, end in others):
        filesystem.delete_file(target.path)
        raise target.overtaken()


def recover_remote(filesystem: pafs.FileSystem, paths: Iterable[str]) -> None:
    """Among files that overlap, keep the chain that reaches furthest and remove those whose rows it
    holds. Raises OSError.
    """
    files = sorted(
        (int(match[1]), int(match[2]), path)
        for path in paths
        if (match := _FINAL.fullmatch(path.rpartition("/")[2]))
    )
    if not files:
        return
    start = files[0][0]
    # offset that a chain from `start` reaches -> its files
    chains: dict[int, list[str]] = {start: []}
    for first, end, path in files:
        if first in chains and end not in chains:
            chains[end] = [*chains[first], path]
    furthest = max(chains)
    for first, end, path in files:
        if path not in chains[furthest] and start <= first and end <= furthest:
            filesystem.delete_file(path)


def _finish(claim: Path, position: Callable[[], int]) -> None:
    """Steps 4 and 5 for a claim that another process holds or held."""
    try:
        text = (pq.read_schema(claim).metadata or {})[RANGE].decode()
    except FileNotFoundError:
        return
    except (KeyError, pa.ArrowException) as error:
        raise ArchiveError(f"{claim} is no file of the archive ({error!r}); remove it") from None
    first, _, end = text.partition("-")
    if position() == int(first):
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            os.link(claim, Target(str(claim.parent), int(first), int(end)).path)
    claim.unlink(missing_ok=True)
    _sync(claim.parent)


def _write(path: Path, data: pa.Buffer) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make names durable; Windows cannot open a folder, and does not need it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
