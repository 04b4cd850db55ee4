"""Child processes that end with their parent, whatever ends it, and say in one line why they died.

A child is stopped by its own id, in its own process group. Nothing survives the parent:
1. a clean end: `stop()`, or else `atexit`;
2. a crash or SIGKILL on Linux: the kernel signals the child (PR_SET_PDEATHSIG);
3. the same elsewhere: the pid file, which the next start in that folder clears (`end_leftovers`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil
from pydantic import SecretStr

from core.errors import ProcessFailed
from core.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
"""The repository: `python -m <room>` runs from here."""

STOP_S = 20.0
"""Seconds that a child has to end by itself: a Kafka broker with open segments takes the longest,
2-6 s.
"""

_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    sys.exit("the parent is gone")
os.execv(command[0], command)
"""
"""Run between fork and exec by a fresh interpreter: `preexec_fn` may deadlock in a process that has
threads.
"""

_running: dict[int, Child] = {}


class Child:
    """One process: its pid file and its log lie in `directory` as `<name>.pid` and `<name>.log`.

    `environment` is the whole environment of the child (None: that of the parent); `cwd` defaults
    to the repository.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        directory: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
    ) -> None:
        self.name, self.command, self.directory, self.cwd = (
            name,
            [str(part) for part in command],
            directory,
            cwd,
        )
        self.environment = environment
        self.log, self.pid_file = directory / f"{name}.log", directory / f"{name}.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Raises ProcessFailed when the program is not there or this child runs already."""
        if self.alive:
            raise ProcessFailed(f"{self.name} runs already, pid {self.pid}")
        program = shutil.which(self.command[0])
        if program is None:
            raise ProcessFailed(f"{self.name}: no program {self.command[0]!r}")
        command = [program, *self.command[1:]]
        # The kernel watches the *thread* that forked, so only the main thread's end means the
        # parent's end.
        if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
            command = [
                sys.executable,
                "-I",
                "-S",
                "-c",
                _DIE_WITH_PARENT,
                str(os.getpid()),
                *command,
            ]
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.cwd,
                start_new_session=True,
            )
        self.pid_file.write_text(
            f"{self._process.pid} {psutil.Process(self._process.pid).create_time()}\n"
        )
        _running[self._process.pid] = self
        return self

    @property
    def pid(self) -> int:
        """Raises ProcessFailed before the first start."""
        if self._process is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._process.pid

    @property
    def alive(self) -> bool:
        """True from start() until the process has ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit status; minus the signal's number when a signal ended it; None while it runs."""
        return None if self._process is None else self._process.poll()

    def check(self) -> None:
        """Raises ProcessFailed when the process has ended."""
        if not self.alive:
            raise ProcessFailed(self.describe("died"))

    def wait(self, timeout: float) -> int:
        """The exit status, once the process ends by itself.

        Raises ProcessFailed after `timeout` seconds.
        """
        if self._process is None:
            raise ProcessFailed(f"{self.name} was not started")
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(self.describe(f"still runs after {timeout:g} s")) from None
        self._forget()
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself: SIGSTOP and SIGCONT pause and continue it."""
        if self._process is not None:
            self._process.send_signal(number)

    def stop(self, timeout: float = STOP_S) -> None:
        """Ask the process to end (SIGTERM), wait, and after `timeout` seconds insist.

        A process that ended is no error.
        """
        if self._process is None:
            return
        if self.alive:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the process and to what it started, as a crash would."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._forget()

    def tail(self, lines: int = 4) -> str:
        """The last non-empty lines of the log, on one line."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 8192))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-lines:])

    def describe(self, what: str) -> str:
        """One line about this child: what happened, its exit status, its log and the log's end."""
        code = self.exit_code
        status = (
            ""
            if code is None
            else f" (signal {signal.Signals(-code).name})"
            if code < 0
            else f" (exit status {code})"
        )
        return f"{self.name} {what}{status}; {self.log} ends: {self.tail() or '(empty)'}"

    def __enter__(self) -> Self:
        return self if self.alive else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _forget(self) -> None:
        _running.pop(self.pid, None)
        self.pid_file.unlink(missing_ok=True)


def module(
    name: str,
    *arguments: str,
    directory: Path,
    environment: Mapping[str, str],
    label: str | None = None,
) -> Child:
    """`python -m <name> <arguments>` as a child, not started yet."""
    return Child(label or name, [sys.executable, "-m", name, *arguments], directory, environment)


def settings_environment(settings: Settings) -> dict[str, str]:
    """This process's environment with every setting in it, so that a child reads exactly
    `settings`, whatever `.env` says.

    Empty is unset: what nobody set here counts as set by nobody there either.
    """
    environment = dict(os.environ)
    for name in Settings.model_fields:
        value = getattr(settings, name) if name in settings.model_fields_set else None
        if isinstance(value, frozenset):
            value = ",".join(key.get_secret_value() for key in value)
        elif isinstance(value, SecretStr):
            value = value.get_secret_value()
        environment[name.upper()] = "" if value is None else str(value)
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def end_leftovers(directory: Path) -> list[str]:
    """End what a killed run left behind in `directory`, by the pid files there; the names of what
    was ended.

    A pid that another process has by now is left alone: its start time differs.
    """
    ended = []
    for pid_file in sorted(directory.rglob("*.pid")):
        # gone already; or a file that its writer could not finish
        with contextlib.suppress(psutil.NoSuchProcess, ValueError):
            pid, started = pid_file.read_text().split()
            process = psutil.Process(int(pid))
            if abs(process.create_time() - float(started)) < 1.0:
                for one in [*process.children(recursive=True), process]:
                    one.kill()
                process.wait(STOP_S)
                ended.append(pid_file.stem)
        pid_file.unlink(missing_ok=True)
    return ended


@atexit.register
def _end_all() -> None:
    for child in reversed(list(_running.values())):
        child.kill()
