"""Recognizes a full disk, and measures free space and folders."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_full(error: OSError) -> bool:
    """Whether `error` means that no space is left.

    numpy raises an OSError without an errno when a write ends early.
    """
    return error.errno in _FULL or (error.errno is None and "requested and" in str(error))


def free_bytes(path: Path) -> int:
    """Free bytes for this user on the file system of `path`."""
    return shutil.disk_usage(path).free


def folder_bytes(path: Path) -> int:
    """Total bytes of all files under `path`."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
