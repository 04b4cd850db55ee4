"""`python -m core.settings`: prints each setting with its value and meaning."""

from __future__ import annotations

from typing import Annotated

import typer

from core.process import cli, tables
from core.process.tables import AsJson
from core.settings import load, rows

app = typer.Typer(add_completion=False)


@app.command()
def settings(
    as_json: AsJson = False,
    markdown: Annotated[
        bool,
        typer.Option("--markdown", help="Print the defaults as the table of docs/settings.md."),
    ] = False,
) -> None:
    """Print each setting: its name, its value here, and its meaning; secrets are masked.

    Settings are environment variables, or lines of the file .env in the working directory.
    """
    if markdown:
        print("| name | default | meaning |\n|---|---|---|")
        for name, value, meaning in rows():
            print(f"| `{name}` | {f'`{value}`' if value else ''} | {meaning} |")
    elif as_json:
        tables.print_json(
            [
                {"name": name, "value": value, "meaning": meaning}
                for name, value, meaning in rows(load())
            ]
        )
    else:
        for name, value, meaning in rows(load()):
            print(f"{name}={value}\n    {meaning}")


if __name__ == "__main__":
    cli.run(app)
