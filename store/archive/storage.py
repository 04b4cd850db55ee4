"""Opens the place that ARCHIVE_URL names: a local folder, or a bucket of an object store."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from core.errors import ConfigurationError
from core.redaction import error_text, is_plain, masked_url


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
