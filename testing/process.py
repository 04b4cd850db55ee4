"""Starts child processes that end with their parent, and says in one line why a child ended.

Each child has its own process group and is stopped by its own pid. When the parent ends:
1. cleanly: `stop()` or `atexit` ends the child;
2. by a crash or SIGKILL on Linux: the kernel kills the child (PR_SET_PDEATHSIG);
3. by a crash on another system: the next start in that folder kills the child by its pid file
   (`end_leftovers`).
"""

from __future__ import annotations

import atexit
import contextlib
import json
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
from core.settings.secret_files import SUFFIX, is_secret

ROOT = Path(__file__).resolve().parent.parent
"""The repository: `python -m <room>` runs from here."""

STOP_S = 20.0
"""Seconds from SIGTERM to SIGKILL; a Kafka broker with open segments takes longest, 2-6 s."""

_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    sys.exit("the parent is gone")
os.execv(command[0], command)
"""
"""A fresh interpreter runs this before `exec`.

`preexec_fn` may deadlock in a process that has threads.
"""

_running: dict[int, Child] = {}


class Child:
    """One process, with its pid file `<name>.pid` and its log `<name>.log` in `directory`.

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
        self.name, self.command = name, [str(part) for part in command]
        self.directory, self.cwd, self.environment = directory, cwd, environment
        self.log, self.pid_file = directory / f"{name}.log", directory / f"{name}.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the process. Raises ProcessFailed: no such program, or the child runs already."""
        if self.alive:
            raise ProcessFailed(f"{self.name} runs already, pid {self.pid}")
        program = shutil.which(self.command[0])
        if program is None:
            raise ProcessFailed(f"{self.name}: no program {self.command[0]!r}")
        command = [program, *self.command[1:]]
        # The kernel signals the child when the forking *thread* ends, so only the main thread may
        # use it.
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
        """Wait until the process ends by itself, and return its exit status.

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
        """Send a signal to the process; SIGSTOP pauses it, SIGCONT continues it.

        SIGSTOP returns once every thread is paused: on a busy machine they go on for a while.
        """
        if self._process is None:
            return
        self._process.send_signal(number)
        runs = self._process.returncode is None
        if number == signal.SIGSTOP and runs and hasattr(os, "waitid"):
            # or exited; WNOWAIT leaves the status to whoever waits for the end
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def stop(self, timeout: float = STOP_S) -> None:
        """End the process by SIGTERM, and by SIGKILL after `timeout` seconds.

        The process may have ended already.
        """
        if self._process is None:
            return
        if self.alive:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its own children by SIGKILL, as a crash would."""
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
        """One line: the child's name, `what` happened, its exit status and the end of its log."""
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
    """This process's environment with every setting in it; the child then ignores `.env`.

    A setting that `settings` does not set is passed as an empty variable, which means unset, and
    so is the file of a secret. Other spellings (`redis_url`) of this process's variables are left
    out: settings are read whatever their case.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in Settings.model_fields
    }
    for name, field in Settings.model_fields.items():
        if is_secret(field):
            environment[name.upper() + SUFFIX] = ""
        value = getattr(settings, name) if name in settings.model_fields_set else None
        if isinstance(value, frozenset):
            value = ",".join(key.get_secret_value() for key in value)
        elif isinstance(value, tuple):
            value = ",".join(value)
        elif isinstance(value, SecretStr):
            value = value.get_secret_value()
        elif isinstance(value, dict):
            value = json.dumps({key: text.get_secret_value() for key, text in value.items()})
        environment[name.upper()] = "" if value is None else str(value)
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


def end_leftovers(directory: Path) -> list[str]:
    """Kill the children that an earlier run left in `directory`, by their pid files; their names.

    A pid that belongs to another process by now is skipped: its start time differs.
    """
    ended = []
    for pid_file in sorted(directory.rglob("*.pid")):
        # the process has ended, or its pid file is incomplete
        with contextlib.suppress(psutil.NoSuchProcess, ValueError):
            pid, started = pid_file.read_text().split()
            process = psutil.Process(int(pid))
            if abs(process.create_time() - float(started)) < 1.0:
                for member in [*process.children(recursive=True), process]:
                    member.kill()
                process.wait(STOP_S)
                ended.append(pid_file.stem)
        pid_file.unlink(missing_ok=True)
    return ended


@atexit.register
def _end_all() -> None:
    for child in reversed(list(_running.values())):
        child.kill()
