"""Compares a retrain with the default hyperparameters to a first retrain that tunes by itself:
`python -m benchmarks.first_retrain`.

Each data set of `python -m benchmarks.headline` is retrained twice from its events, without Redis:
with TUNE_SECONDS=0, and with --seconds (60). Both retrains judge the same users by their new items
in the last tenth of the events. Two-Tower is off: on two cores it leaves no time for a fit in a
minute, and then ALS has all of it, as here.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks.ranking import headline_worlds
from benchmarks.ranking.quality import data_folder
from core.codec import encode_json
from core.settings import Settings
from models.registry import Registry
from training.job.retrain import Options, retrain

SHOWN = (("all", "als"), ("warm", "als"), ("all", "routed"))
"""Segments and engines of the table."""


class Result(NamedTuple):
    """The metrics of a bundle by segment and engine, and the facts of its search."""

    ndcg: dict[tuple[str, str], dict[str, Any]]
    als: dict[str, Any]
    tuning: dict[str, Any] | None


def measure(folder: Path, seconds: float, users: int, threads: int) -> Result:
    """Retrain from the events and items in `folder`."""
    models = folder / f"models-{seconds:g}"
    settings = Settings(
        _env_file=None, models_path=models, tune_seconds=seconds, enable_two_tower=False
    )
    options = Options(
        events=folder / "events.parquet",
        items=items if (items := folder / "items.jsonl").exists() else None,
        users=users,
        threads=threads,
        lease=False,
    )
    version = retrain(settings, options, Console(file=io.StringIO()))
    rows = json.loads((models / version / "evaluation" / "metrics.json").read_text())["rows"]
    facts = Registry(models).manifest(version).settings
    by_key = {(row["segment"], row["engine"]): row for row in rows if row["metric"] == "ndcg@10"}
    return Result(by_key, facts["als"], facts["tuning"])


def compare(name: str, folder: Path, arguments: argparse.Namespace) -> None:
    """Print the rows of one data set."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        entries, _ = headline_worlds.WORLDS[name](folder, work)
        if entries:
            lines = b"".join(encode_json(item) + b"\n" for item in entries)
            (work / "items.jsonl").write_bytes(lines)
        default, tuned = (
            measure(work, seconds, arguments.users, arguments.threads)
            for seconds in (0.0, arguments.seconds)
        )
    for key in SHOWN:
        if key in default.ndcg and key in tuned.ndcg:
            before, after = default.ndcg[key], tuned.ndcg[key]
            print(
                f"| {name} | {key[0]} | {key[1]} | {before['users']} | {_cell(before)} | "
                f"{_cell(after)} | {after['mean'] / before['mean'] - 1:+.0%} |",
                flush=True,
            )
    als = ", ".join(f"{field} {value:.3g}" for field, value in tuned.als.items())
    search = (tuned.tuning or {}).get("als") or {}
    print(
        f"  {name}: {als}; {search.get('trials')} trials in {search.get('seconds')} s; NDCG@10 of "
        f"held-out items {search.get('former_value')} -> {search.get('value')}, gain "
        f"{search.get('gain')}",
        flush=True,
    )


def main() -> None:
    """Run the comparison and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="TUNE_SECONDS")
    parser.add_argument("--users", type=int, default=1000, help="most users who are judged")
    parser.add_argument("--threads", type=int, default=0, help="of the solver; 0: one a core")
    parser.add_argument("worlds", nargs="*", help="simulator, retailrocket, ml1m")
    arguments = parser.parse_args()
    folder = data_folder()
    print("| data | users | answers | judged | NDCG@10 default | tuned | change |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.worlds or headline_worlds.WORLDS:
        if folder is None and name != "simulator":
            print(f"  {name}: skipped, EDDYLINE_DATA names no folder with it")
            continue
        compare(name, folder or Path(), arguments)


def _cell(row: dict[str, Any]) -> str:
    return f"{row['mean']:.4f} ({row['low']:.4f}-{row['high']:.4f})"


if __name__ == "__main__":
    main()
