"""`--help` answers at once: no command line imports what only its commands need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from testing.process import ROOT

HEAVY = {
    *("aiohttp", "confluent_kafka", "fastapi", "faust", "implicit", "numpy", "optuna", "pandas"),
    *("prometheus_client", "pyarrow", "redis", "scipy", "sklearn", "torch", "uvicorn"),
}
SCRIPT = """
import contextlib, importlib, io, json, sys
import typer

def walk(command, path):
    with contextlib.redirect_stdout(io.StringIO()) as page:
        command.main([*path, "--help"], "eddyline", standalone_mode=False)
    assert "Usage" in page.getvalue(), path
    paths.append(path)

paths = []
root = typer.main.get_command(importlib.import_module(sys.argv[1]).app)
queue = [(root, [])]
while queue:
    command, path = queue.pop()
    walk(root, path)
    queue += [(sub, [*path, name]) for name, sub in getattr(command, "commands", {}).items()]
print(json.dumps([len(paths), sorted(sys.modules)]))
"""


@pytest.mark.parametrize(
    ("room", "least"), [("api", 1), ("demo", 1), ("engines", 4), ("streams", 17), ("training", 16)]
)
def test_help_of_every_command_imports_nothing_heavy(room: str, least: int) -> None:
    output = subprocess.run(
        [sys.executable, "-c", SCRIPT, f"{room}.__main__"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert output.returncode == 0, output.stderr
    pages, modules = json.loads(output.stdout)
    assert pages >= least
    assert not HEAVY & set(modules)
