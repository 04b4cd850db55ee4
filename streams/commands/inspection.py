"""`python -m streams inspect`: the commands that show what is stored."""

from __future__ import annotations

from typing import Annotated

import typer

from core.process.cli import load_settings
from core.process.tables import AsJson, Wide

app = typer.Typer(
    no_args_is_help=True,
    help="Show what Redis, the log, the archive and the registry hold, decoded.",
)


@app.command("user")
def inspect_user(user_id: str, as_json: AsJson = False, wide: Wide = False) -> None:
    """Show the whole state of a user, and which engine answers the user and why."""
    from streams.inspection import output, views

    output.show(views.user(load_settings(), user_id), as_json, wide)


@app.command("item")
def inspect_item(item_id: str, as_json: AsJson = False, wide: Wide = False) -> None:
    """Show the catalogue entry of an item and its popularity now."""
    from streams.inspection import output, views

    output.show(views.item(load_settings(), item_id), as_json, wide)


@app.command("positions")
def inspect_positions(
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", help="First wait until Redis and the archive have what the log has now."
        ),
    ] = False,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Show the log's ends and the positions of Redis and the archive, by partition."""
    from streams import catch_up
    from streams.inspection import output, views

    read = catch_up.wait if wait else views.partition_positions
    output.show(read(load_settings()), as_json, wide)


@app.command("model")
def inspect_model(as_json: AsJson = False, wide: Wide = False) -> None:
    """Show the live bundle."""
    from streams.inspection import output, views

    output.show(views.model(load_settings()), as_json, wide)


@app.command("memory")
def inspect_memory(
    days: Annotated[
        float, typer.Option(min=0.01, help="Days of events from which growth is measured.")
    ] = 7.0,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Show the memory of Redis by kind of key, its growth, and the days until maxmemory."""
    from streams.inspection import output, views

    output.show(views.memory(load_settings(), days), as_json, wide)
