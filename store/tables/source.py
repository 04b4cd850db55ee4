"""Opens a file, a folder of files or an object store, and decompresses what it holds.

The compression follows from the first bytes of a file, not from its name.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TextIO, cast
from urllib.parse import unquote

import msgspec
import pyarrow as pa
import pyarrow.fs as pafs

from core.errors import ConfigurationError, SourceFailed
from core.redaction import error_text, masked_url

_FINGERPRINTED = 65_536
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


class Part(msgspec.Struct, frozen=True):
    """One file of a source. `partition`: the columns that its folder names hold (`year=2024`)."""

    filesystem: pafs.FileSystem
    path: str
    shown: str
    size: int
    partition: Mapping[str, str | None] = {}

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The decompressed content as a stream. Raises SourceFailed."""
        with reading(self.shown), self._open_file() as file:
            yield _decompressed(file, self.shown)

    @contextmanager
    def open_seekable(self) -> Iterator[BinaryIO]:
        """The decompressed content with random access: a compressed one in a temporary file."""
        with reading(self.shown), self._open_file() as file:
            content = _decompressed(file, self.shown)
            if content is file:
                yield file
                return
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(content, copy)
                copy.seek(0)
                yield cast("BinaryIO", copy)

    def head(self, size: int) -> bytes:
        """The first `size` decompressed bytes. Raises SourceFailed."""
        with self.open() as content:
            return content.read(size)

    def fingerprint(self) -> str:
        """The file's name and 8 digits of a hash of its size and its first 64 KiB.

        Files of the same name get different digits.
        """
        with reading(self.shown), self._open_file() as file:
            digest = hashlib.sha256(str(self.size).encode() + b"\n" + file.read(_FINGERPRINTED))
        return f"{PurePosixPath(self.path).name[:64]}-{digest.hexdigest()[:8]}"

    @contextmanager
    def _open_file(self) -> Iterator[BinaryIO]:
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            with Path(self.path).open("rb") as file:
                yield file
        else:
            with self.filesystem.open_input_file(self.path) as remote:
                yield cast("BinaryIO", io.BufferedReader(_Remote(remote)))


class _Remote(io.RawIOBase):
    """A file of an object store as Python's own streams read it."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._file.seek(offset, whence)
        return int(self._file.tell())

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def find(path: str | Path) -> tuple[str, Sequence[Part]]:
    """The name of the source at `path` for event ids, and its files in the order of their names.

    `path`: a file, a folder, or s3://bucket/key. Hidden files and those that begin with _ are no
    part of a folder. Raises ConfigurationError, SourceFailed.
    """
    text = str(path)
    shown = masked_url(text)
    if "://" in text:
        try:
            filesystem, place = pafs.FileSystem.from_uri(text)
        except (OSError, pa.ArrowException) as error:
            raise ConfigurationError(
                f"{shown} is neither a path nor s3://bucket/key: {error_text(error, text)}"
            ) from None
    else:
        filesystem, place = pafs.LocalFileSystem(), Path(text).expanduser().absolute().as_posix()
    with reading(shown):
        about = filesystem.get_file_info(place)
        if about.type == pafs.FileType.NotFound:
            raise ConfigurationError(f"{shown} is no file and no folder")
        if about.type != pafs.FileType.Directory:
            part = Part(filesystem, place, shown, about.size or 0)
            return part.fingerprint(), [part]
        files = filesystem.get_file_info(pafs.FileSelector(place, recursive=True))
    parts = []
    for file in sorted(files, key=lambda file: file.path):
        relative = PurePosixPath(file.path).relative_to(place.rstrip("/"))
        if file.type == pafs.FileType.File and not any(
            name.startswith((".", "_")) for name in relative.parts
        ):
            parts.append(
                Part(filesystem, file.path, f"{shown}/{relative}", file.size, _partition(relative))
            )
    if not parts:
        raise ConfigurationError(f"{shown} is a folder without a file to read")
    digest = hashlib.sha256("\n".join(part.fingerprint() for part in parts).encode()).hexdigest()
    return f"{PurePosixPath(place).name[:64]}-{digest[:8]}", parts


@contextmanager
def reading(shown: str) -> Iterator[None]:
    """Turns the errors of files, decompressors and parsers into SourceFailed with the name."""
    try:
        yield
    except (
        OSError,
        EOFError,
        UnicodeError,
        lzma.LZMAError,
        zipfile.BadZipFile,
        pa.ArrowException,
    ) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceFailed(f"{shown} cannot be read: {error_text(OSError(text), '')}") from None


@contextmanager
def decoded(content: BinaryIO, encoding: str, errors: str) -> Iterator[TextIO]:
    """The stream as text with its line breaks; the stream stays open."""
    text = io.TextIOWrapper(content, encoding=encoding, errors=errors, newline="")
    try:
        yield text
    finally:
        text.detach()


def _partition(relative: PurePosixPath) -> dict[str, str | None]:
    pairs = (name.partition("=") for name in relative.parts[:-1] if "=" in name)
    return {
        unquote(key): None if value == _NULL_PARTITION else unquote(value)
        for key, _, value in pairs
    }


def _decompressed(file: BinaryIO, shown: str) -> BinaryIO:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return cast("BinaryIO", io.BufferedReader(_Stream(pa.CompressedInputStream(file, "zstd"))))
    if magic.startswith(b"BZh"):
        return cast("BinaryIO", bz2.BZ2File(file))
    if magic == b"\xfd7zXZ\x00":
        return cast("BinaryIO", lzma.LZMAFile(file))
    if magic.startswith(b"PK\x03\x04"):
        archive = zipfile.ZipFile(file)
        names = [
            name
            for name in archive.namelist()
            if not name.endswith("/") and not name.startswith("__MACOSX/")
        ]
        if "[Content_Types].xml" in names:  # an Excel file is a zip of its own
            file.seek(0)
            return file
        if len(names) != 1:
            raise ConfigurationError(
                f"{shown} is a zip of {len(names)} files ({', '.join(names[:5])}"
                f"{', ...' if len(names) > 5 else ''}): unpack it and give one of them"
            )
        return cast("BinaryIO", io.BufferedReader(cast("io.RawIOBase", archive.open(names[0]))))
    return file


class _Stream(io.RawIOBase):
    """Arrow's decompressor as Python's own streams read it: forwards only."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
