"""Measures a retrain beside the bare fit: `python -m benchmarks.retrain` writes the row `retrain`.

One `python -m training retrain` at the size of ML-1M (a million events, 6,040 users, 3,706 items,
the default 128 factors and 20 sweeps), beside a live bundle, so that the gate has something to
compare with; the archive is real Parquet, Redis a real server. Before and after it the reference
runs, in a process of its own too: only `implicit`'s fit on the matrix of the same events.

value      seconds that the retrain takes on top of a bare fit, from step 1 to the end of step 8:
           snapshot, dataset, content, the fit before the cut and the refresh over everything
           instead of one fit, evaluation of 250 users by four engines, gate, publish, prune
reference  seconds of the bare fit, the median of the four that run before, between and after three
           retrains

Neither counts the start of the interpreter and its imports. The target is a ratio of 0.25 at most.

Uses ML-1M itself when EDDYLINE_DATA has it (the events as they are, its whole catalogue), else
random events of that size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import SecretStr

from benchmarks.measurements import record
from benchmarks.ranking.quality import ROOT, data_folder
from core.codec import encode_json
from core.settings import Settings
from core.types import Item
from models.registry import Registry
from store.archive.archive import Archive
from store.archive.schema import SCHEMA
from store.state import connection, keys, retrains
from store.state.apply.deletions import mark_ready
from testing.process import settings_environment
from testing.redis import RedisServer
from training.data import items

COMMAND = "python -m benchmarks.retrain"
USERS, ITEMS, EVENTS, PARTITIONS = 6_040, 3_706, 1_000_209, 4
RUNS = 3
BARE = """
import sys, time
import scipy.sparse as sp, threadpoolctl
from implicit.cpu.als import AlternatingLeastSquares
matrix = sp.load_npz(sys.argv[1])
with threadpoolctl.threadpool_limits(1, "blas"):
    model = AlternatingLeastSquares(
        factors=128, regularization=0.01, alpha=40.0, iterations=20, random_state=42
    )
    began = time.monotonic()
    model.fit(matrix, show_progress=False)
    print(time.monotonic() - began)
"""


def source(folder: Path | None) -> tuple[pa.Table, list[Item]]:
    """user_id, item_id, value, timestamp in time order; the catalogue."""
    if folder is not None and (folder / "ml1m").is_dir():
        table = pq.read_table(
            folder / "ml1m" / "interactions.parquet",
            columns=["user_id", "item_id", "value", "timestamp"],
        )
        table = table.set_column(
            3, "timestamp", pc.fill_null(table["timestamp"], pc.min(table["timestamp"]))
        )
        catalogue = pq.read_table(folder / "ml1m" / "items.parquet")
        named = catalogue.rename_columns(
            ["text" if name == "plot" else name for name in catalogue.column_names]
        )
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "items.parquet"
            pq.write_table(named, path)
            return table.sort_by("timestamp"), items.read(path, "movie")
    rng = np.random.default_rng(1)
    shares = 1.0 / np.arange(1, ITEMS + 1)
    return pa.table(
        {
            "user_id": rng.integers(0, USERS, EVENTS),
            "item_id": rng.choice(ITEMS, EVENTS, p=shares / shares.sum()),
            "value": rng.integers(1, 6, EVENTS).astype(np.float64),
            "timestamp": 1.7e9 + np.arange(EVENTS),
        }
    ), [
        Item(
            item_id=str(number),
            item_type="movie",
            title=f"Movie {number}",
            categories=[f"genre {number % 18}"],
        )
        for number in range(ITEMS)
    ]


def fill(settings: Settings, table: pa.Table, catalogue: list[Item]) -> None:
    """The archive and the catalogue as the streams would have left them."""
    partition = table["user_id"].to_numpy() % PARTITIONS
    archive = Archive(settings.archive_url)
    for number in range(PARTITIONS):
        mine = table.filter(pa.array(partition == number))
        n = mine.num_rows
        columns = {
            "partition": pa.array(np.full(n, number, np.int32)),
            "offset": pa.array(np.arange(n)),
            "broker_time": mine["timestamp"].cast(pa.float64()),
            "event_id": pa.array([f"{number}-{place}" for place in range(n)]),
            "user_id": mine["user_id"].cast(pa.string()),
            "item_id": mine["item_id"].cast(pa.string()),
            "event_type": pa.array(["rating"] * n),
            "timestamp": mine["timestamp"].cast(pa.float64()),
            "value": mine["value"].cast(pa.float64()),
        }
        whole = pa.table(
            [columns.get(field.name, pa.nulls(n, field.type)) for field in SCHEMA], SCHEMA
        )
        archive.append(settings.interactions_topic, number, 0, n, whole)
    with connection.connect(settings) as client:
        client.hset(
            keys.of(client).items, mapping={item.item_id: encode_json(item) for item in catalogue}
        )
        mark_ready(client)


def retrain(settings: Settings) -> tuple[float, str]:
    """Seconds of the eight steps, and the version."""
    done = subprocess.run(
        [sys.executable, "-m", "training", "retrain"],
        cwd=ROOT,
        env={**os.environ, **settings_environment(settings)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    with connection.connect(settings) as client:
        return float(retrains.last(client)["seconds"]), done.stdout.strip().splitlines()[-1]


def bare_fit(matrix: Path) -> float:
    return float(
        subprocess.run(
            [sys.executable, "-c", BARE, str(matrix)], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with (
        tempfile.TemporaryDirectory() as temporary,
        RedisServer(Path(temporary) / "redis") as server,
    ):
        work = Path(temporary)
        settings = Settings(
            redis_url=SecretStr(server.url),
            archive_url=str(work / "archive"),
            models_path=work / "models",
            enable_two_tower=False,
            tune_seconds=0,
        )
        fill(settings, *source(data_folder()))
        _, live = retrain(settings)
        matrix = work / "matrix.npz"
        matrix.write_bytes(
            (work / "models" / live / "dataset" / "als_interactions.npz").read_bytes()
        )
        fits, totals, steps = [bare_fit(matrix)], [], []
        for _ in range(RUNS):
            seconds, version = retrain(settings)
            totals.append(seconds)
            steps.append(Registry(settings.models_path).manifest(version).metrics["seconds"])
            fits.append(bare_fit(matrix))
    bare, whole = statistics.median(fits), statistics.median(totals)
    sweeps = statistics.median(step["als"] for step in steps)
    row = record(
        "retrain",
        whole - bare,
        "s",
        "implicit's bare fit of the same events, in a process of its own",
        bare,
        COMMAND,
    )
    print(
        f"bare fits {_seconds(fits)} s; retrains {_seconds(totals)} s, of which the fit's "
        f"sweeps {sweeps:.1f} s; the steps of each:"
    )
    for step in steps:
        print(f"  {json.dumps(step)}")
    print(
        f"on top of the fit: {row.value:.2f} s = {row.ratio:.3f} of it (target 0.25); not "
        f"in the fit's sweeps: {whole - sweeps:.2f} s"
    )


def _seconds(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


if __name__ == "__main__":
    main()
