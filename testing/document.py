"""Plays the commands of a document: every block of shell, in its order, in one shell."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import ProcessFailed
from testing.process import STOP_S

_TRACE = "played-"
"""Begins the line after each block: its number, the status and the seconds since the start."""


@dataclass(frozen=True)
class Block:
    """A block of shell, and the heading above it."""

    heading: str
    script: str


@dataclass(frozen=True)
class Played:
    """A block that was run: its output, and the seconds that it took."""

    block: Block
    output: str
    seconds: float


def blocks(page: Path) -> list[Block]:
    """The ```sh blocks of a page."""
    parts = re.split(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
    return [
        Block(heading, script)
        for heading, text in zip(["", *parts[1::2]], parts[::2], strict=True)
        for script in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def play(
    commands: list[Block], folder: Path, environment: Mapping[str, str], timeout: float
) -> list[Played]:
    """Run the blocks in one bash, from `folder` on, and end every process that they left.

    `environment` is the whole environment; `timeout` in seconds, for all blocks together. Raises
    ProcessFailed at the first command that fails, with the end of its output.
    """
    lines = ["set -euo pipefail"]
    for number, block in enumerate(commands):
        lines += [block.script, f"echo {_TRACE}{number}"]
    log = folder / "played.log"
    played: list[Played] = []
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", "\n".join(lines)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
        try:
            _follow(process, log, commands, played, time.monotonic() + timeout)
        finally:
            _end(process)
    return played


def _follow(
    process: subprocess.Popen[bytes],
    log: Path,
    commands: list[Block],
    played: list[Played],
    deadline: float,
) -> None:
    """Append each block to `played` once it has ended. Raises ProcessFailed."""
    began, done = time.monotonic(), 0
    while len(played) < len(commands):
        ended = process.poll() is not None
        text = log.read_text(errors="replace")[done:]
        mark = f"{_TRACE}{len(played)}\n"
        if mark in text:
            output = text[: text.index(mark)]
            now = time.monotonic()
            played.append(Played(commands[len(played)], output, now - began))
            began, done = now, done + len(output) + len(mark)
        elif ended or time.monotonic() > deadline:
            block = commands[len(played)]
            what = f"ended with status {process.returncode}" if ended else "took too long"
            running = "" if ended else f"\nRunning:\n{_processes(process.pid)}"
            raise ProcessFailed(
                f"{block.heading}: a command {what}\n{block.script}\n{text[-3000:]}{running}"
            )
        else:
            time.sleep(0.05)


def _processes(group: int) -> str:
    """The processes of a group: state, seconds since their start, command."""
    if shutil.which("ps") is None:
        return "unknown without ps"
    columns = "pgid=,pid=,stat=,etimes=,args="
    lines = subprocess.run(
        ["ps", "-A", "-o", columns], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return "\n".join(line for line in lines if line.split()[0] == str(group))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the shell and what it left: they are of one process group."""
    deadline = time.monotonic() + STOP_S
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()  # a zombie is a member of the group
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
