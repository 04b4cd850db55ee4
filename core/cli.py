"""How every command line of ours starts and ends."""

from __future__ import annotations

import sys

import typer

from core.errors import EddylineError


def run(app: typer.Typer) -> None:
    """Run `app`; an error of ours is one line on stderr and exit status 1, Ctrl-C is 130, a defect keeps its traceback."""
    try:
        app()
    except EddylineError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
