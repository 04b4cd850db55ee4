"""Writes an evaluation: a table in the terminal, metrics.json, metrics.csv, and the manifest."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from training.evaluation.evaluate import DIVERSITY_AT, SEGMENTS, Evaluation, rounded


def report(evaluation: Evaluation, console: Console) -> None:
    """Print a table: one line an engine and segment."""
    judged = evaluation.judged
    shown = (
        "ndcg@10",
        "recall@10",
        "precision@10",
        "map@10",
        *(f"{name}@{DIVERSITY_AT}" for name in ("diversity", "coverage", "novelty")),
    )
    table = Table(
        title=(
            f"{len(judged.users)} of {judged.out_of} users with new items after the cut; 95% "
            f"bootstrap intervals"
        )
    )
    for column in ("segment", "engine", "users"):
        table.add_column(column)
    for column in shown:
        table.add_column(column, justify="right")
    cells = {(row["segment"], row["engine"], row["metric"]): row for row in evaluation.rows}
    for part in SEGMENTS:
        for engine in evaluation.values:
            if (first := cells.get((part, engine, shown[0]))) is not None:
                table.add_row(
                    part,
                    engine,
                    str(first["users"]),
                    *(_cell(cells[part, engine, name]) for name in shown),
                )
        table.add_section()
    console.print(table)


def save(evaluation: Evaluation, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write metrics.json (with `facts` about the run) and metrics.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = evaluation.rows
    judged = evaluation.judged
    about = {
        **facts,
        "cut": evaluation.split.cut,
        "users": len(judged.users),
        "users_with_new_items": judged.out_of,
        "seed": judged.seed,
        "rows": rows,
    }
    (folder / "metrics.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    with (folder / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def headline(evaluation: Evaluation) -> dict[str, Any]:
    """NDCG@10 and recall@10 by engine over all judged users, for the manifest."""
    return {
        engine: {name: rounded(evaluation.mean(engine, name)) for name in ("ndcg@10", "recall@10")}
        for engine in evaluation.values
    }


def _cell(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return "-"
    return (
        f"{row['mean']:.4f}"
        if row["low"] is None
        else f"{row['mean']:.4f} [dim]{row['low']:.3f}-{row['high']:.3f}[/]"
    )
