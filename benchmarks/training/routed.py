"""Measures what users get from a first retrain beside the best single engine, by segment.

`python -m benchmarks.routed` runs `python -m training retrain` on each data set of
headline_worlds, and on the bookshop of docs/your-own-domain.md, with the settings of a newcomer. It
prints a table of NDCG@10 from the evaluation that the retrain publishes. What its search finds
within TUNE_SECONDS depends on the machine; with `--tuned` it does not search.
`--checkout FOLDER` runs the retrain of another working copy, to compare with. It writes no row of
results/quality.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq

from benchmarks.ranking import headline_worlds, quality
from benchmarks.ranking.headline_fits import HYPERPARAMETERS
from benchmarks.training import books

SINGLE = ("popular", "content_based", "als", "two_tower")
SEGMENTS = ("cold", "warm", "hot", "all")
METRIC = "ndcg@10"

Rows = list[dict[str, Any]]
"""The rows of one metrics.json."""


def write(world: headline_worlds.World, folder: Path) -> None:
    """Write the events and the catalogue as the files that a retrain reads."""
    pq.write_table(world.table, folder / "events.parquet")
    lines = [msgspec.json.encode(entry) for entry in world.entries]
    (folder / "items.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    if world.name == books.NAME:
        (folder / "use_cases.toml").write_text(books.USE_CASES, "utf-8")


def load(name: str, folder: Path, data: Path) -> headline_worlds.World:
    """The data set `name`; `data`: where the real ones lie. Its files may be made in `folder`."""
    return books.world(folder) if name == books.NAME else headline_worlds.load(name, data)


def retrain(folder: Path, seed: int, checkout: Path, *options: str) -> Rows:
    """The evaluation of a bundle that a retrain in `checkout` publishes from the files."""
    models = folder / f"models-{seed}"
    command = [sys.executable, "-m", "training", "retrain", "--no-lease", *options]
    command += ["--events", str(folder / "events.parquet")]
    if (folder / "items.jsonl").stat().st_size > 1:
        command += ["--items", str(folder / "items.jsonl")]
    environment = {**os.environ, "MODELS_PATH": str(models), "TRAINING_SEED": str(seed)}
    if (use_cases := folder / "use_cases.toml").is_file():
        environment["USE_CASES_PATH"] = str(use_cases)
    subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=sys.stderr)
    (evaluated,) = models.glob("*Z/evaluation/metrics.json")
    rows: Rows = json.loads(evaluated.read_text("utf-8"))["rows"]
    return [row for row in rows if row["metric"] == METRIC]


def table(name: str, runs: list[Rows]) -> list[str]:
    """One line of Markdown a segment: the means of the runs."""
    cells: dict[tuple[str, str], Rows] = defaultdict(list)
    for rows in runs:
        for row in rows:
            cells[row["segment"], row["engine"]].append(row)
    lines = []
    for segment in SEGMENTS:
        single = {one: cells[segment, one] for one in SINGLE if cells.get((segment, one))}
        if not single:
            continue
        best = max(single, key=lambda one: _mean(single[one], "mean"))
        routed = _mean(cells[segment, "routed"], "mean")
        alone, low, high = (_mean(single[best], field) for field in ("mean", "low", "high"))
        users = _mean(single[best], "users")
        ratio = f"{routed / alone:.2f}" if alone > 0 else "-"
        lines.append(
            f"| {name} | {segment} | {users:.0f} | {routed:.4f} | {best} | {alone:.4f} "
            f"[{low:.4f}, {high:.4f}] | {ratio} | {'yes' if routed >= low else 'no'} |"
        )
    return lines


def _mean(rows: Rows, field: str) -> float:
    return float(np.mean([row[field] or 0.0 for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = (*headline_worlds.WORLDS, books.NAME)
    parser.add_argument("--dataset", choices=names, action="append")
    parser.add_argument("--seeds", default="1", help="comma-separated")
    parser.add_argument("--users", type=int, default=1000, help="most users who are judged")
    parser.add_argument("--threads", type=int, default=0, help="of the fits; 0: one a core")
    parser.add_argument(
        "--tuned",
        action="store_true",
        help="with the ALS hyperparameters that results/ has, instead of a search",
    )
    parser.add_argument("--checkout", type=Path, default=quality.ROOT, metavar="FOLDER")
    arguments = parser.parse_args()
    folder = quality.data_folder()
    print(
        "| data set | segment | users | routed | best single engine | its NDCG@10 | ratio "
        "| at least its interval |\n|---|---|---|---|---|---|---|---|"
    )
    for name in arguments.dataset or names:
        if folder is None and name not in ("simulator", books.NAME):
            print(f"{name} is skipped: EDDYLINE_DATA names no folder", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as temporary:
            write(load(name, Path(temporary), folder or Path()), Path(temporary))
            options = ["--users", str(arguments.users), "--threads", str(arguments.threads)]
            if arguments.tuned and name in HYPERPARAMETERS:
                options += ["--hyperparameters", str(HYPERPARAMETERS[name])]
            runs = [
                retrain(Path(temporary), int(seed), arguments.checkout, *options)
                for seed in arguments.seeds.split(",")
            ]
        print("\n".join(table(name, runs)), flush=True)


if __name__ == "__main__":
    main()
