"""Runs a processor in a process of its own, and reads its report."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.peers.events import SAMPLES
from benchmarks.peers.meter import Report
from core.settings import Settings
from testing.process import ROOT

REFERENCE = "poll and decode"
TIMEOUT_S = 600.0


class Program(NamedTuple):
    """A module of this folder, the Python that runs it, and its processing guarantee."""

    name: str
    module: str
    python: str
    guarantee: str = ""


class Work(NamedTuple):
    """`events` of the topic of interactions, for at most `seconds`; the state of `samples` is
    reported. `kill_after`: events after which the processor kills itself; `resume`: it continues
    in the folder of an earlier run.
    """

    settings: Settings
    events: int
    seconds: float
    samples: Iterable[str] = SAMPLES
    kill_after: int = 0
    resume: bool = False


def run(program: Program, work: Work, folder: Path) -> Report:
    """Run it in `folder`; the report.

    Raises RuntimeError with the end of its log when it ends without one.
    """
    folder.mkdir(exist_ok=work.resume)
    command = [
        *(program.python, "-m", f"benchmarks.peers.{program.module}"),
        f"--brokers={work.settings.kafka_bootstrap_servers}",
        f"--topic={work.settings.interactions_topic}",
        f"--partitions={work.settings.topic_partitions}",
        *(f"--events={work.events}", f"--seconds={work.seconds}"),
        f"--samples={','.join(work.samples)}",
        f"--state={folder / f'state-{folder.name}'}",
        f"--report={folder / 'report'}",
        f"--guarantee={program.guarantee}",
        f"--kill-after={work.kill_after}",
        *(["--resume"] if work.resume else []),
    ]
    with (folder / "log").open("ab") as output:
        done = subprocess.run(
            command, cwd=ROOT, stdout=output, stderr=output, timeout=TIMEOUT_S, check=False
        )
    if done.returncode or not (folder / "report").exists():
        end = (folder / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{program.name} ended with exit status {done.returncode}: {end}")
    return msgspec.json.decode((folder / "report").read_bytes(), type=Report)
