"""Writes an evaluation: a table in the terminal, metrics.json, metrics.csv, and the manifest."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from core.errors import ConfigurationError
from core.process.tables import Column, Table
from training.evaluation.evaluate import DIVERSITY_AT, NAMES, SEGMENTS, Evaluation, rounded

METRICS = (*NAMES, f"coverage@{DIVERSITY_AT}")
"""The metrics that `--metric` may name."""
_DEFAULT = (
    "ndcg@10",
    "recall@10",
    f"diversity@{DIVERSITY_AT}",
    "precision@10",
    "map@10",
    f"coverage@{DIVERSITY_AT}",
    f"novelty@{DIVERSITY_AT}",
)
"""Metrics of the table by default, the important ones first."""


def check_metrics(names: Sequence[str]) -> None:
    """Raise ConfigurationError for a name that is no metric."""
    if unknown := [name for name in names if name not in METRICS]:
        raise ConfigurationError(f"--metric {unknown[0]!r} is none of {', '.join(METRICS)}")


def report(evaluation: Evaluation, console: Console, names: Sequence[str] = ()) -> None:
    """Print a table: one line an engine and segment.

    `names`: metrics to print with their intervals; by default NDCG@10 with its interval, and as
    many others as there is room for.
    """
    judged = evaluation.judged
    shown = names or _DEFAULT
    table = Table(
        Column("segment"),
        Column("engine"),
        Column("users", number=True),
        *(Column(name, 0 if names else place, number=True) for place, name in enumerate(shown)),
        title=(
            f"{len(judged.users)} of {judged.out_of} users with new items after the cut; 95% "
            f"bootstrap intervals"
        ),
    )
    cells = {(row["segment"], row["engine"], row["metric"]): row for row in evaluation.rows}
    for part in SEGMENTS:
        for engine in evaluation.values:
            if (first := cells.get((part, engine, shown[0]))) is not None:
                table.add(
                    part,
                    engine,
                    first["users"],
                    *(
                        _cell(cells[part, engine, name], bool(names) or name == shown[0])
                        for name in shown
                    ),
                )
        table.add_section()
    table.show(console)


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


def _cell(row: Mapping[str, Any], with_interval: bool) -> str | None:
    if row["mean"] is None:
        return None
    mean = f"{row['mean']:.4f}"
    return (
        f"{mean} {row['low']:.3f}-{row['high']:.3f}"
        if with_interval and row["low"] is not None
        else mean
    )
