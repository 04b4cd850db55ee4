"""Ranking quality of ALS on MovieLens 1M: `python -m benchmarks.quality` writes benchmarks/quality.json.

Protocol (He et al. 2017, "NCF leave-one-out"): each user's latest rating is held out and every other rating is an interaction of weight 1;
the held-out item is ranked among 99 given negatives, or among the whole catalogue minus what the user has; ties count against it. A
user's vector is folded in from the training items, as when serving. Popularity by the same code checks the protocol: published are
.4535 / .2543, with ties as they fall.

The hyperparameters are those that `python -m training tune` finds on the training rows alone, from its ordinary ranges, within 15 minutes
(--minutes); the test rows are first read afterwards. `--hyperparameters FILE` takes those of an earlier search. The data is not part of
the project: EDDYLINE_DATA names its folder (default: ../shared/data), and without it this says so and ends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.settings import Settings
from training import als, dataset, events

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("quality.json")
FOUND = Path(__file__).with_name("ml1m-hyperparameters.json")
NEGATIVES = 99
SEEDS = (1, 2, 3)
K = 10
SAMPLED = "leave-one-out, 99 negatives"
FULL = "leave-one-out, whole catalogue"


class Row(msgspec.Struct):
    dataset: str
    protocol: str
    engine: str
    metric: str
    mean: float
    seeds: list[int]
    command: str


def data_folder() -> Path | None:
    """Where the data sets lie, or None."""
    named = os.environ.get("EDDYLINE_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def training_events(folder: Path, output: Path) -> None:
    """ML-1M without the held-out rows, as a file of events; the rating's value is left out: every rating counts alike."""
    rows = pq.read_table(folder / "ml1m" / "interactions.parquet", columns=["user_id", "item_id", "event_type", "timestamp", "ncf_test"])
    kept = rows.filter(pc.invert(rows["ncf_test"])).drop_columns(["ncf_test"])
    pq.write_table(kept, output)


def tune(made: Path, minutes: float, output: Path, study: Path) -> None:
    """The search, as anybody would run it."""
    command = [
        sys.executable,
        "-m",
        "training",
        "tune",
        "--dataset",
        str(made),
        "--minutes",
        str(minutes),
        "--negatives",
        str(NEGATIVES),
        "--study",
        str(study),
        "--output",
        str(output),
    ]
    subprocess.run(command, cwd=ROOT, check=True)


class Test:
    """`users (n,)` rows; `items (n, 1 + NEGATIVES)` rows, the held-out one first, -1 for an item without training rows."""

    def __init__(self, data: dataset.Dataset, folder: Path) -> None:
        table = pq.read_table(folder / "ml1m" / "ncf_leave_one_out_test.parquet")
        self.users = data.users.rows(table["user_id"].cast(pa.string()).to_pylist())
        held_out = data.items.rows(table["item_id"].cast(pa.string()).to_pylist())
        negatives = [data.items.rows([str(item) for item in each]) for each in table["negatives"].to_pylist()]
        self.items = np.column_stack([held_out, np.array(negatives)])
        self.matrix = data.matrix()

    def judge(self, scores: Any) -> dict[tuple[str, str], float]:
        """`scores (n_users, n_items)` -> HR@10 and NDCG@10 by both protocols. An item without training rows scores below all others."""
        mine = np.where(self.items >= 0, scores[self.users[:, None], self.items], -np.inf)
        sampled = (mine[:, 1:] >= mine[:, :1]).sum(axis=1)
        whole = scores[self.users].copy()
        seen = self.matrix[self.users].tocoo()
        whole[seen.row, seen.col] = -np.inf
        full = (whole >= mine[:, :1]).sum(axis=1) - (self.items[:, 0] >= 0)
        answer = {}
        for protocol, better in ((SAMPLED, sampled), (FULL, full)):
            hit = better < K
            answer[protocol, f"HR@{K}"] = float(hit.mean())
            answer[protocol, f"NDCG@{K}"] = float((hit / np.log2(better + 2.0)).mean())
        return answer


def by_popularity(test: Test) -> dict[tuple[str, str], float]:
    popular = np.asarray(test.matrix.getnnz(axis=0), np.float32)
    return test.judge(np.tile(popular, (test.matrix.shape[0], 1)))


def by_als(test: Test, data: dataset.Dataset, chosen: als.Hyperparameters, seed: int) -> dict[tuple[str, str], float]:
    model = als.fit(test.matrix, data.users, data.items, chosen, seed)
    columns = data.items.rows(model.item_ids.ids)
    scores = np.full(test.matrix.shape, -np.inf, np.float32)
    scores[:, columns] = model.fold_in_many(test.matrix[:, columns], num_threads=0) @ model.item_factors.T
    return test.judge(scores)


def record(rows: list[Row], path: Path = RESULTS) -> None:
    """Merge rows by what they measure."""

    def what(row: Row) -> tuple[str, str, str, str]:
        return row.dataset, row.protocol, row.engine, row.metric

    before = msgspec.json.decode(path.read_bytes(), type=list[Row]) if path.exists() else []
    new = {what(row) for row in rows}
    merged = sorted([*(row for row in before if what(row) not in new), *rows], key=what)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(merged), indent=1) + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15.0, help="time budget of the search")
    parser.add_argument("--hyperparameters", type=Path, help="take these instead of searching")
    chosen = parser.parse_args()
    folder = data_folder()
    if folder is None or not (folder / "ml1m").is_dir():
        print("skipped: there is no folder ml1m in EDDYLINE_DATA (default ../shared/data)", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        training_events(folder, work / "events.parquet")
        table, skipped = events.from_file(work / "events.parquet")
        data = dataset.build(table, Settings().use_cases, source="ml1m without ncf_test rows", skipped=skipped)
        found = chosen.hyperparameters
        if found is None:
            dataset.save(data, work / "dataset")
            tune(work / "dataset", chosen.minutes, FOUND, work / "study.sqlite")
            found = FOUND
        tuned = als.hyperparameters(Settings(), found)
        command = "python -m benchmarks.quality" + (
            f" --hyperparameters {found}" if chosen.hyperparameters else f" --minutes {chosen.minutes:g}"
        )
        test = Test(data, folder)
        rows = [
            Row("ml1m", protocol, "popular", metric, round(value, 4), [], command)
            for (protocol, metric), value in by_popularity(test).items()
        ]
        for engine, hyperparameters in (("als (tuned)", tuned), ("als (defaults)", als.Hyperparameters())):
            runs = [by_als(test, data, hyperparameters, seed) for seed in SEEDS]
            rows += [
                Row("ml1m", *key[:1], engine, key[1], round(float(np.mean([run[key] for run in runs])), 4), list(SEEDS), command)
                for key in runs[0]
            ]
    record(rows)
    print(f"ALS tuned: {tuned}")
    for row in rows:
        print(f"{row.dataset}  {row.protocol:32} {row.engine:16} {row.metric:8} {row.mean:.4f}")


if __name__ == "__main__":
    main()
