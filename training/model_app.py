"""Command line of `python -m training models`: the published bundles, and which one is live."""

from __future__ import annotations

from typing import Annotated

import typer

from core.process import tables
from core.process.cli import load_settings
from core.process.tables import AsJson, Wide

models_app = typer.Typer(
    no_args_is_help=True, help="Look at the published bundles and choose which one is live."
)


@models_app.command("list")
def _list(as_json: AsJson = False, wide: Wide = False) -> None:
    """List every published version, newest first, with its metrics, and which one is live."""
    from training import model_commands

    model_commands.list_models(load_settings(), as_json, tables.console(wide))


@models_app.command("show")
def _show(
    version: Annotated[
        str | None, typer.Argument(help="A version; without it, the live one.")
    ] = None,
) -> None:
    """Show the manifest of one version, as JSON."""
    from training import model_commands

    model_commands.show_model(load_settings(), version)


@models_app.command("diff")
def _diff(a: str, b: str, as_json: AsJson = False, wide: Wide = False) -> None:
    """Show the differences between the manifests of two versions."""
    from training import model_commands

    model_commands.diff_models(load_settings(), a, b, as_json, tables.console(wide))


@models_app.command("promote")
def _promote(version: str) -> None:
    """Make a version live, after verifying each of its files."""
    from training import model_commands

    model_commands.promote_model(load_settings(), version)


@models_app.command("rollback")
def _rollback() -> None:
    """Make the previously live version live again."""
    from training import model_commands

    model_commands.rollback_model(load_settings())
