"""Recognizes a full disk, measures free space and folders, and flushes files to the disk."""

from __future__ import annotations

import errno
import os
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


def fsync(path: Path) -> None:
    """Flush the file or folder `path` to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; NTFS journals the rename itself
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
