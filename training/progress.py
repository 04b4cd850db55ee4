"""Shows the progress of long work on stderr.

On a terminal it is a bar, otherwise a line every LINE_EVERY_S.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 10.0
"""Seconds between lines where there is no terminal: often enough to see that work goes on, rare
enough for a log.
"""


class ProgressBar:
    """One running bar. Its methods may be called from any thread."""

    def __init__(self, bar: Progress, task: TaskID, title: str, total: float) -> None:
        self._bar, self._task, self._title, self._total = bar, task, title, total
        self._done = 0.0
        self._last_line = time.monotonic()
        self._lock = threading.Lock()

    def advance(self, count: float = 1, text: str = "") -> None:
        """Add `count` to what is done."""
        with self._lock:
            self.at(self._done + count, text)

    def at(self, done: float, text: str = "") -> None:
        """Set what is done to `done` of the total; `text` describes the current work."""
        self._done = done
        self._bar.update(self._task, completed=min(done, self._total), text=text)
        if self._bar.disable and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            typer.echo(f"  {self._title}: {min(done / self._total, 1.0):.0%} {text}", err=True)


@contextmanager
def progress(title: str, total: float) -> Iterator[ProgressBar]:
    """Show a bar during the block: `with progress("fitting ALS", 20) as show: ...
    show.advance()`.
    """
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
        yield ProgressBar(bar, bar.add_task(title, total=total, text=""), title, total)
