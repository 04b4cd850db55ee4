"""Ranking quality of Two-Tower: `python -m benchmarks.quality_two_tower` adds its rows to benchmarks/quality.json.

ML-1M as in benchmarks.quality. Sports and Outdoors (Zhou et al. 2020, "S3-Rec"): each user's last item is held out for the test, the one
before it says when to stop, the rest is trained on; the last item is ranked among the whole catalogue minus what the user has. A user's
vector is made by numpy as when serving, without a profile. `--dataset` and `--seeds` narrow it down.

The hyperparameters were chosen by the held-out items within the training rows, never by the test.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import quality
from benchmarks.quality import K, Row
from core.settings import Settings
from models.two_tower import OLDER, TwoTowerModel
from training import dataset, events, items, two_tower
from training.dataset import Dataset
from training.two_tower import Hyperparameters
from training.two_tower_data import Sequences

ML1M = Hyperparameters(learning_rate=0.002, epochs=5, candidates=1024)
SPORTS = Hyperparameters(dropout=0.5, learning_rate=0.002, epochs=10, candidates=2048)
LAST_ITEM = "last item, whole catalogue"
SPORTS_FOLDER = "s3rec_sports_and_outdoors"
Scores = dict[tuple[str, str], float]


def user_vectors(model: TwoTowerModel, data: Dataset) -> npt.NDArray[np.float32]:
    """(n_users, d): what the engine makes of each user's events."""
    sequences = Sequences.of(data, None, Settings().use_cases)
    rows = model.item_ids.rows(sequences.items.ids)
    found = np.empty((len(data.users), model.dimension), np.float32)
    for user, (start, end) in enumerate(zip(sequences.start.tolist(), sequences.end.tolist(), strict=True)):
        cut = max(start, end - model.history)
        types = model.type_rows([data.event_types[kind] for kind in sequences.event_type[cut:end].tolist()])
        vectors = model.item_vectors[rows[sequences.item[max(start, cut - OLDER) : end]]]
        older = model.older_part(vectors[: len(vectors) - (end - cut)])
        found[user] = model.user_vector(vectors[len(vectors) - (end - cut) :], types, sequences.time[cut:end], older)
    return found


def fitted(data: Dataset, catalogue: Path, chosen: Hyperparameters, seed: int, threads: int, judged: int) -> TwoTowerModel:
    def told(now: two_tower.Progress) -> None:
        print(f"  epoch {now.epoch}  loss {now.loss:.3f}  validation NDCG@10 {now.ndcg:.4f}  {now.seconds:.0f} s", flush=True)

    entries = items.read(catalogue)
    return two_tower.fit(data, entries, Settings().use_cases, chosen, seed, threads=threads, judged_users=judged, on_epoch=told).model


def ml1m(folder: Path, seed: int, threads: int, work: Path) -> Scores:
    quality.training_events(folder, work / "events.parquet")
    table, skipped = events.from_file(work / "events.parquet")
    data = dataset.build(table, Settings().use_cases, source="ml1m without ncf_test rows", skipped=skipped)
    model = fitted(data, folder / "ml1m" / "items.parquet", ML1M, seed, threads, two_tower.JUDGED_USERS)
    scores = np.full((len(data.users), len(data.items)), -np.inf, np.float32)
    scores[:, data.items.rows(model.item_ids.ids)] = user_vectors(model, data) @ model.item_vectors.T
    return quality.Test(data, folder).judge(scores)


def sports(folder: Path, seed: int, threads: int, work: Path) -> Scores:
    rows = pq.read_table(folder / SPORTS_FOLDER / "interactions.parquet").drop_columns(["value"])
    rows = rows.set_column(rows.column_names.index("event_type"), "event_type", pa.array(["view"] * rows.num_rows))
    test = pc.equal(rows["split"], "test")
    pq.write_table(rows.filter(pc.invert(test)), work / "events.parquet")
    table, skipped = events.from_file(work / "events.parquet")
    data = dataset.build(table, Settings().use_cases, source="sports without test rows", skipped=skipped)
    model = fitted(data, folder / SPORTS_FOLDER / "items.parquet", SPORTS, seed, threads, len(data.users))
    held_out = rows.filter(test)
    users = data.users.rows(held_out["user_id"].cast(pa.string()).to_pylist())
    targets = model.item_ids.rows(held_out["item_id"].cast(pa.string()).to_pylist())
    return last_item(user_vectors(model, data), model, data, users, targets)


def last_item(
    vectors: npt.NDArray[np.float32], model: TwoTowerModel, data: Dataset, users: npt.NDArray[np.int32], targets: npt.NDArray[np.int32]
) -> Scores:
    """HR@10 and NDCG@10 of `targets (n,)`, rows of the model or -1, for `users (n,)`; ties count against it."""
    seen = data.matrix()
    columns = model.item_ids.rows(data.items.ids)
    better = np.full(len(users), len(columns))
    for place, (user, target) in enumerate(zip(users.tolist(), targets.tolist(), strict=True)):
        if target >= 0:
            scores = model.scores(vectors[user])
            own = scores[target]
            scores[columns[seen.indices[seen.indptr[user] : seen.indptr[user + 1]]]] = -np.inf
            scores[target] = -np.inf
            better[place] = (scores >= own).sum()
    hit = better < K
    return {(LAST_ITEM, f"HR@{K}"): float(hit.mean()), (LAST_ITEM, f"NDCG@{K}"): float((hit / np.log2(better + 2.0)).mean())}


RUNS: dict[str, Callable[[Path, int, int, Path], Scores]] = {"ml1m": ml1m, "sports": sports}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=RUNS, action="append", help="only this one; may come twice")
    parser.add_argument("--seeds", default=",".join(map(str, quality.SEEDS)), help="comma-separated")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: one a core")
    chosen = parser.parse_args()
    folder = quality.data_folder()
    if folder is None:
        print("skipped: EDDYLINE_DATA names no folder (default ../shared/data)", file=sys.stderr)
        return
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    command = " ".join(["python -m benchmarks.quality_two_tower", *sys.argv[1:]])
    for name in chosen.dataset or RUNS:
        runs = []
        for seed in seeds:
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as temporary:
                runs.append(RUNS[name](folder, seed, chosen.threads, Path(temporary)))
            print(f"{name}, seed {seed}, {time.monotonic() - began:.0f} s: {runs[-1]}", flush=True)
        rows = [
            Row(name, protocol, "two_tower", metric, round(float(np.mean([run[protocol, metric] for run in runs])), 4), seeds, command)
            for protocol, metric in runs[0]
        ]
        quality.record(rows)
        for row in rows:
            print(f"{row.dataset}  {row.protocol:32} {row.engine:16} {row.metric:8} {row.mean:.4f}")


if __name__ == "__main__":
    main()
