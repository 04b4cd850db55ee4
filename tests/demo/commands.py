"""Checks a command line of a document against the --help of the command."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys

from testing.process import ROOT

ROOMS = {"api", "streams", "training", "engines", "demo", "benchmarks"}


def check_command(words: list[str]) -> None:
    """Raises AssertionError unless `words` (`python -m <room> <subcommand>* <option>*`) names a
    command and options that exist.
    """
    assert words[:2] == ["python", "-m"], words
    room, rest = words[2], words[3:]
    assert room.split(".")[0] in ROOMS, f"{room} is no room with commands"
    subcommands = []
    for word in rest:
        if word.startswith("-") or word not in _listed(room, *subcommands):
            break
        subcommands.append(word)
    text = _help(room, *subcommands)
    if rest and not rest[0].startswith("-") and _listed(room):
        assert subcommands, f"python -m {room} has no command {rest[0]!r}"
    for option in (word.split("=")[0] for word in rest if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), (
            f"python -m {' '.join([room, *subcommands])} has no option {option}"
        )


def _listed(room: str, *subcommands: str) -> set[str]:
    _, _, commands = _help(room, *subcommands).partition("Commands")
    return set(re.findall(r"^[│|\s]+([a-z][a-z-]*)\s", commands, re.MULTILINE))


@functools.cache
def _help(room: str, *subcommands: str) -> str:
    environment = {**os.environ, "COLUMNS": "250", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", room, *subcommands, "--help"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=200, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-500:]}"
    assert "usage:" in done.stdout.lower(), f"{' '.join(command)} runs instead of explaining itself"
    return done.stdout
