"""What the demo shows: one line for each stage."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from rich.console import Console
from rich.markup import escape

console = Console(highlight=False)
if not console.is_terminal:
    console.width = 80


class Stage:
    """One line of the demo: a stage while it runs, then its time and its result."""

    def __init__(self, what: str) -> None:
        self._what, self._results = what, ""
        self._status = console.status(f"{what} ...")

    def now(self, text: str) -> None:
        """Show the progress while the stage runs."""
        room = max(0, console.width - len(self._what) - 10)  # one line, or the spinner scrolls
        self._status.update(f"{self._what} ... [dim]{escape(text[:room])}[/]")

    def result(self, text: str) -> None:
        """Set the text that stays on the screen."""
        self._results = f": {text}"

    def __enter__(self) -> Self:
        self._since = time.monotonic()
        self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._status.stop()
        word = "[green]done[/]" if kind is None else "[red]failed[/]"
        console.print(
            f"{word} {time.monotonic() - self._since:5.1f} s  {self._what}{escape(self._results)}",
            soft_wrap=True,
        )


@contextmanager
def uninterrupted_end() -> Iterator[None]:
    """Ignore signals while everything stops, so that a second Ctrl-C leaves no process behind."""
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        console.print("Stopping ...", style="dim")
