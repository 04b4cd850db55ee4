"""Opens the place that ARCHIVE_URL names: a local folder, or a bucket of an object store."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from core.errors import ArchiveError, ConfigurationError
from core.redaction import error_text, is_plain, masked_url


class Storage:
    """The file system in which an archive lies, and the path of the archive in it."""

    def __init__(self, url: str, filesystem: pafs.FileSystem | None = None) -> None:
        """`filesystem`: where the path `url` lies, when it is not named by the URL.

        Raises ConfigurationError for a URL of an unknown kind.
        """
        self.url = url
        self.filesystem, self.root = (filesystem, url) if filesystem else open_url(url)
        self.is_local = isinstance(self.filesystem, pafs.LocalFileSystem)

    def files(self, folder: str, recursive: bool = False) -> list[pafs.FileInfo]:
        """All files in `folder`, none if it does not exist. Raises ArchiveError."""
        selector = pafs.FileSelector(folder, allow_not_found=True, recursive=recursive)
        try:
            return [
                info
                for info in self.filesystem.get_file_info(selector)
                if info.type == pafs.FileType.File
            ]
        except OSError as error:
            raise ArchiveError(
                f"cannot list {folder}: {self.text_of(error)}; check ARCHIVE_URL"
            ) from None

    def text_of(self, error: BaseException) -> str:
        """The text of an error without the secrets of the URL."""
        return error_text(error, self.url)


def open_url(url: str) -> tuple[pafs.FileSystem, str]:
    """The file system, and the path in it. Raises ConfigurationError."""
    if not is_plain(url):
        raise ConfigurationError(
            f"ARCHIVE_URL={masked_url(url)} is neither a folder nor s3://bucket/prefix. In an "
            f"access key and its secret write / as %2F, + as %2B, # as %23, ? as %3F, @ as %40; "
            f"or leave both to the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    if "://" not in url:
        return pafs.LocalFileSystem(), Path(url).expanduser().absolute().as_posix()
    try:
        filesystem, path = pafs.FileSystem.from_uri(url)
    except (OSError, pa.ArrowException) as error:
        raise ConfigurationError(
            f"ARCHIVE_URL={masked_url(url)}: {error_text(error, url)}; give a folder or "
            f"s3://bucket/prefix"
        ) from None
    return filesystem, path.rstrip("/")
