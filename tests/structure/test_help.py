"""Every command explains itself at once, in words, at 80 columns; and one command line leads to all
of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from testing.process import ROOT

HEAVY = {
    *("aiohttp", "confluent_kafka", "fastapi", "faust", "implicit", "numpy", "optuna", "pandas"),
    *("prometheus_client", "pyarrow", "pyspark", "redis", "scipy", "sklearn", "torch", "uvicorn"),
}
PAGES = """
import contextlib, importlib, io, json, sys
from core.process import cli

def page(path):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        root.main([*path, "--help"], "eddyline", standalone_mode=False)
    return output.getvalue()

root = cli.command_of(importlib.import_module(sys.argv[1]).app)
pages, queue = {}, [(root, [])]
while queue:
    command, path = queue.pop()
    pages[" ".join(path)] = page(path)
    queue += [(sub, [*path, name]) for name, sub in getattr(command, "commands", {}).items()]
print(json.dumps([pages, sorted(sys.modules)]))
"""

LISTINGS = {
    "engines.__main__": ("recommend", "similar", "explain"),
    "streams.__main__": (
        *("topics", "import", "dlq list"),
        *("inspect user", "inspect item", "inspect positions", "inspect model", "inspect memory"),
    ),
    "training.__main__": ("evaluate", "tune", "experiments", "models list", "models diff"),
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "least"),
    [
        ("api.__main__", 1),
        ("demo.__main__", 1),
        ("engines.__main__", 4),
        ("streams.__main__", 17),
        ("training.__main__", 16),
        ("core.settings.__main__", 1),
        ("eddyline", 1),
    ],
)
def test_help_of_every_command_is_light_and_names_types_in_words(module: str, least: int) -> None:
    output = run("-c", PAGES, module)
    assert output.returncode == 0, output.stderr
    pages, modules = json.loads(output.stdout)
    assert len(pages) >= least
    assert not HEAVY & set(modules)
    for path, page in pages.items():
        assert "Usage: eddyline" in page, path
        assert not re.search("<[a-z]", page), f"{path} shows a type of Python"
        assert max(map(len, page.splitlines())) <= 80, path
        summary = re.split(r"\n *\n", page.partition("Usage:")[2])[1]
        assert re.match(r"\s*[A-Z][a-z]+\b", summary), f"{path}: {summary}"
        assert summary.rstrip().endswith("."), f"{path} is no sentence: {summary}"


@pytest.mark.parametrize("module", ["engines.__main__", "streams.__main__", "training.__main__"])
def test_every_command_with_a_table_prints_it_wide_and_as_json(module: str) -> None:
    pages = json.loads(run("-c", PAGES, module).stdout)[0]
    listings = [path for path, page in pages.items() if "--wide" in page]
    assert set(LISTINGS[module]) <= set(listings)
    assert [path for path in listings if "--json" not in pages[path]] == (
        ["retrain"] if module.startswith("training") else []
    ), "a retrain writes its metrics into the bundle"


def test_one_command_line_leads_to_the_commands_of_all_rooms() -> None:
    for room in ("demo", "streams", "training", "engines", "api", "settings"):
        output = run("-m", "eddyline", room, "--help")
        assert output.returncode == 0, output.stderr
        assert f"Usage: python -m eddyline {room}" in output.stdout


def test_a_shell_completes_the_commands() -> None:
    output = run(
        "-c",
        "import sys, eddyline; sys.argv[0] = 'eddyline'; eddyline.main()",
        _EDDYLINE_COMPLETE="complete_bash",
        COMP_WORDS="eddyline streams dlq re",
        COMP_CWORD="3",
    )
    assert output.stdout.split() == ["replay"], output.stderr


def test_wrong_usage_ends_with_2_and_a_wrong_setting_with_1_and_one_line() -> None:
    assert run("-m", "eddyline", "streams", "nonsense").returncode == 2
    output = run("-m", "eddyline", "streams", "topics", LOG_LEVEL="nonsense")
    assert output.returncode == 1
    assert output.stderr.startswith("error: ")
    assert len(output.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "command", [("streams", "simulate", "--dry-run"), ("settings",)], ids=lambda command: command[0]
)
def test_a_reader_that_stops_reading_causes_no_traceback(command: tuple[str, ...]) -> None:
    """`... | head -1` ends with 141 (128 + SIGPIPE), whatever is left in the buffers."""
    command = (sys.executable, "-m", "eddyline", *command)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait(60) == 141
