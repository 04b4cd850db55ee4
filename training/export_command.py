"""`python -m training export`: its options and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.process.cli import load_settings
from training.command_options import ExportKind


def export_data(
    kind: Annotated[ExportKind, typer.Argument(help="What to write.")],
    output: Annotated[Path, typer.Argument(help="A new file: .jsonl, of events .parquet.")],
) -> None:
    """Write items, users or events as the files that `--items` and `--events` read.

    Items and users as they are in Redis; events as the archive has them, without duplicates and
    without those of deleted users. Example: `python -m training export items items.jsonl`
    """
    from training.export import export

    rows = export(load_settings(), kind, output)
    typer.echo(f"{output}: {rows:,} {kind}")
