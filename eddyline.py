"""One command line for all rooms: `python -m eddyline streams ingest` does what `python -m streams
ingest` does.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from core.process import cli

COMMANDS = {
    "demo": "demo.__main__",
    "streams": "streams.__main__",
    "training": "training.__main__",
    "engines": "engines.__main__",
    "api": "api.__main__",
    "settings": "core.settings.__main__",
}
"""Name -> the module that holds its command line, from the first one to try to those that run."""


class Rooms(TyperGroup):
    """The command lines of the rooms, and of the settings; one is imported when it is used."""

    def list_commands(self, _ctx: Any) -> list[str]:
        """Their names."""
        return list(COMMANDS)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        """The command line of this name; None: there is no such name."""
        if cmd_name not in COMMANDS:
            return None
        command = cli.command_of(import_module(COMMANDS[cmd_name]).app)
        command.name = cmd_name
        return command


app = typer.Typer(cls=Rooms, no_args_is_help=True)


@app.callback()
def _describe() -> None:
    """Run, feed, train and ask Eddyline, a streaming recommender.

    Each command below also runs alone: python -m streams, python -m training.

    The settings are environment variables; the command settings prints them.
    """


def main() -> None:
    """Run the command `eddyline`."""
    name = Path(sys.argv[0]).name
    cli.run(app, "python -m eddyline" if name == Path(__file__).name else name)


if __name__ == "__main__":
    main()
