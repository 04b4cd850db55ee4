"""`python -m training experiments`: its options and help."""

from __future__ import annotations

from typing import Annotated

import typer

from core.process import tables
from core.process.cli import load_settings
from core.process.tables import AsJson, Wide


def experiments(
    as_json: AsJson = False,
    wide: Wide = False,
    detect: Annotated[
        float,
        typer.Option(
            min=0.001, max=1.0, help="Difference to look for, as a part of the control's share."
        ),
    ] = 0.1,
    forget: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="Remove the numbers of this experiment instead."),
    ] = None,
) -> None:
    """Show users, outcomes, differences (95% intervals) and verdicts of the experiments so far.

    A verdict waits until every variant has the users that a difference of `--detect` needs;
    docs/experiments-guide.md says why.
    """
    from training import commands

    commands.report_experiments(load_settings(), as_json, detect, forget, tables.console(wide))
