from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testing.process import ROOT


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.fixture(scope="session")
def backend_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a backend: an empty virtual environment with the client's wheel, its extra
    `kafka`, and nothing of this repository.

    The wheel is built from a copy, by the setuptools of this environment; its dependencies are
    those of the lock.
    """
    folder = tmp_path_factory.mktemp("backend")
    shutil.copytree(
        ROOT / "clients" / "python",
        folder / "source",
        ignore=shutil.ignore_patterns("build", "dist", "*.egg-info"),
    )
    _run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        folder,
        folder / "source",
    )
    (wheel,) = folder.glob("eddyline_client-*.whl")
    _run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    pip = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--only-binary",
        ":all:",
    )
    _run(*pip, "--constraint", ROOT / "requirements" / "dev.txt", f"{wheel}[kafka]")
    return python
