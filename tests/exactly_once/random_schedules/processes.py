"""Runs the ingest and archive processes of a schedule and starts them again when they end."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

from core.settings import Settings
from testing.process import Child, module, settings_environment

_REBUILD_ADVICE = "python -m streams rebuild"
_SERVER_UNAVAILABLE = (
    "is the broker up",
    "cannot be reached",
    "did not answer",
    "Error 111",
    "Connection refused",
    "LOADING",
)
"""Messages of a process that was started while a server was unavailable. It is started again, as by
a supervisor of services.
"""


class Process(NamedTuple):
    """A child process and its kind, `ingest` or `archive`."""

    kind: str
    child: Child


class Processes:
    """The processes of one schedule.

    `problems`: one line for each process that ended without a reason. `restarts`, `rebuilds`: how
    many there were.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings, self._directory = settings, directory
        self._running: list[Process] = []
        self._children = 0
        self.is_log_trimmed = False
        """Whether ingest may end with the advice to run a rebuild."""
        self.problems: list[str] = []
        self.restarts = self.rebuilds = 0

    def start_ingest(self, *arguments: str, group: str | None = None) -> Process:
        """Start an ingest process.

        Without `group` it gets its own consumer group, so that it need not wait until the session
        of another process expires.
        """
        return self._start(
            "ingest",
            "tests.exactly_once.ingest_that_fails",
            *arguments,
            group=group or f"ingest-{uuid.uuid4().hex[:8]}",
        )

    def start_archiver(self) -> Process:
        """Start an archive process in its own consumer group."""
        return self._start("archive", "streams", "archive", group=f"archive-{uuid.uuid4().hex[:8]}")

    def of(self, kind: str) -> list[Process]:
        """The running processes of a kind."""
        return [process for process in self._running if process.kind == kind]

    def all(self) -> list[Process]:
        """The running processes."""
        return list(self._running)

    def kill(self, process: Process) -> None:
        """kill -9."""
        process.child.kill()
        self._running.remove(process)

    def stop(self, process: Process) -> None:
        """Stop a process and wait until it has ended."""
        process.child.stop()
        self._running.remove(process)

    def stop_all(self, kind: str) -> None:
        """Stop all processes of a kind."""
        for process in self.of(kind):
            self.stop(process)

    def remove(self, process: Process) -> None:
        """Forget a process that has ended."""
        self._running.remove(process)

    def remove_stopped(self) -> None:
        """Forget the processes that have ended with exit code 0."""
        self._running = [
            process
            for process in self._running
            if process.child.alive or process.child.exit_code != 0
        ]

    def supervise(self) -> None:
        """Start ended processes again; an end without a known reason is a problem."""
        for process in list(self._running):
            code = process.child.exit_code
            # a rebuild for an earlier process has stopped all processes of its kind
            if code is None or process not in self._running:
                continue
            self._running.remove(process)
            text = process.child.tail(3)
            self.restarts += 1
            if code < 0:
                pass  # killed at a step of ingest
            elif process.kind == "ingest" and self.is_log_trimmed and _REBUILD_ADVICE in text:
                self.rebuild()
            elif not any(reason in text for reason in _SERVER_UNAVAILABLE):
                self.problems.append(process.child.describe("ended by itself"))
            self._start_again(process.kind)

    def rebuild(self, *arguments: str) -> None:
        """Run `streams rebuild` with every ingest stopped, as an operator does."""
        self.rebuilds += 1
        self.stop_all("ingest")
        self._run("rebuild", 60, "streams", "rebuild", *arguments)

    def archive_the_rest(self, timeout_s: float) -> None:
        """Stop the archive processes and archive the log up to its end."""
        self.stop_all("archive")
        group = f"archive-{uuid.uuid4().hex[:8]}"
        self._run("archive", timeout_s, "streams", "archive", "--until-idle", group=group)

    def kill_all(self) -> None:
        """kill -9 of every process."""
        for process in self.all():
            self.kill(process)

    def describe(self, kind: str) -> str:
        """The latest lines of the processes of a kind."""
        return "; ".join(process.child.describe("runs") for process in self.of(kind))

    def _run(
        self, kind: str, timeout_s: float, name: str, *arguments: str, group: str | None = None
    ) -> None:
        """Run a command to its end; a failure is a problem."""
        process = self._start(kind, name, *arguments, group=group)
        self._running.remove(process)
        if process.child.wait(timeout_s) != 0:
            self.problems.append(process.child.describe("failed"))

    def _start_again(self, kind: str) -> None:
        if kind == "archive":
            self.start_archiver()
        elif not self.of("ingest"):
            self.start_ingest()

    def _start(self, kind: str, name: str, *arguments: str, group: str | None = None) -> Process:
        self._children += 1
        environment = settings_environment(self._settings)
        if group is not None:
            environment[f"{kind.upper()}_GROUP"] = group
        child = module(
            name,
            *arguments,
            directory=self._directory / "children",
            environment=environment,
            label=f"{kind}-{self._children}",
        )
        process = Process(kind, child.start())
        self._running.append(process)
        return process
