"""The TypeScript client: its types are those of the OpenAPI document, it compiles strictly, and it
works against the real API.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from redis import Redis

from api.app import create_app
from core.settings import Settings
from eddyline_client import __version__
from testing.process import ROOT
from tests.api.world import KEY
from tests.clients.support import serve_world
from tests.conftest import Spawn

CLIENT = ROOT / "clients" / "typescript"


def _run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=CLIENT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout[-6000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def packages() -> Path:
    """node_modules of the lock file; installed only where they are missing or the lock has
    changed.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs Node 20 or newer and npm on PATH")
    lock, stamp = (
        (CLIENT / "package-lock.json").read_bytes(),
        CLIENT / "node_modules" / ".installed-lock.json",
    )
    if not stamp.exists() or stamp.read_bytes() != lock:
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
        stamp.write_bytes(lock)
    return CLIENT / "node_modules" / ".bin"


@pytest.fixture(scope="module")
def compiled(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Client and tests as JavaScript, checked by the strict compiler.

    In a folder of its own, which finds no other module.
    """
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "package.json").write_text('{"type": "module"}')
    _run(packages / "tsc", "--outDir", folder)
    return folder


def test_the_types_are_those_of_the_openapi_document(packages: Path, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(create_app(Settings(_env_file=None)).openapi()))
    _run(packages / "openapi-typescript", document, "--output", tmp_path / "schema.ts")
    assert (CLIENT / "src" / "schema.ts").read_text() == (tmp_path / "schema.ts").read_text(), (
        "run make client-types"
    )


def test_the_lock_file_names_no_registry() -> None:
    lock = json.loads((CLIENT / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


def test_both_clients_have_one_version() -> None:
    for name in ("package.json", "package-lock.json"):
        assert json.loads((CLIENT / name).read_text())["version"] == __version__, name


def test_retries_and_errors(compiled: Path) -> None:
    assert "# fail 0" in _run(
        "node", "--test", "--test-reporter=tap", compiled / "test" / "retries.test.js"
    )


@pytest.mark.timeout(480)
def test_every_call_works_against_the_api_and_ingest(
    compiled: Path, settings: Settings, redis: Redis, broker: object, spawn: Spawn
) -> None:
    url = serve_world(settings, redis, spawn)
    output = _run(
        "node",
        "--test",
        "--test-reporter=tap",
        compiled / "test" / "api.test.js",
        EDDYLINE_URL=url,
        EDDYLINE_KEY=KEY,
    )
    assert "# pass 3" in output
