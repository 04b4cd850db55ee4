"""What a person sees while something long runs: a bar on a terminal, a line a step anywhere else. Always on stderr."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0
"""Seconds between lines where there is no terminal: enough to see that it lives, few enough for a log."""


class Shown:
    """A running bar."""

    def __init__(self, bar: Progress, task: TaskID, what: str, total: float) -> None:
        self._bar, self._task, self._what, self._total = bar, task, what, total
        self._done = 0.0
        self._told = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, count: float = 1, text: str = "") -> None:
        """So many more are done. May be called from any thread."""
        with self._lock:
            self.at(self._done + count, text)

    def at(self, done: float, text: str = "") -> None:
        """`done` of the total is done; `text` says what is being done now."""
        self._done = done
        self._bar.update(self._task, completed=min(done, self._total), text=text)
        if self._bar.disable and time.monotonic() - self._told >= LINE_EVERY_S:
            self._told = time.monotonic()
            typer.echo(f"  {self._what}: {min(done / self._total, 1.0):.0%} {text}", err=True)


@contextmanager
def progress(what: str, total: float) -> Iterator[Shown]:
    """`with progress("fitting ALS", 20) as show: ... show.advance()`."""
    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
    with bar:
        yield Shown(bar, bar.add_task(what, total=total, text=""), what, total)
