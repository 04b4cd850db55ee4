"""Measures ranking quality of ALS: `python -m benchmarks.quality`.

It writes its rows to results/quality.json. The protocols are those of quality_protocols. A user's
vector is folded in from the training items, as when serving. On ML-1M popularity by the same code
checks the protocol: published are .4535 / .2543, with ties as they fall.

The hyperparameters are those that `python -m training tune als` finds on the training rows alone,
from its ordinary ranges, within 15 minutes (--minutes); the test rows choose nothing.
`--hyperparameters FILE` uses those of an earlier search. The data is not part of the project:
EDDYLINE_DATA names its folder (default: ../shared/data); without it the command prints this and
ends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.ranking.quality_protocols import FOLDERS, LOADERS, Gains, Protocol
from core.settings import Settings
from training import als
from training.data import dataset_files

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parents[1] / "results" / "quality.json"
NEGATIVES = {"ml1m": 99}
"""Items that a search ranks the held-out one among; a protocol that is not named ranks it among the
whole catalogue.
"""
SEEDS = (1, 2, 3)
BLOCK = 256
"""Users whose scores are in memory at once: 40 MB at 40,000 items."""
Scores = Callable[[list[int]], npt.NDArray[np.float32]]
"""Rows (n,) of users -> scores (n, n_items) of the data's items."""


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


def hyperparameters_file(name: str) -> Path:
    """The file of the hyperparameters that a search on a data set found."""
    return RESULTS.with_name(f"{name}-hyperparameters.json")


class Search(NamedTuple):
    """The options of a search: its time budget in minutes; the items that it ranks the held-out one
    among (0: the whole catalogue); its threads (0: one a core); the most factors, if more than the
    range of the settings has.
    """

    minutes: float
    negatives: int = 99
    threads: int = 0
    factors: int | None = None


def tune(data: Path, output: Path, study: Path, search: Search) -> None:
    """Run `python -m training tune als` on a data set."""
    values = {
        "dataset": data,
        "minutes": search.minutes,
        "negatives": search.negatives,
        "study": study,
        "output": output,
        "threads": search.threads,
    }
    options = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    environment = dict(os.environ)
    if search.factors is not None:
        environment["ALS_FACTORS"] = str(search.factors)
    subprocess.run(
        [sys.executable, "-m", "training", "tune", "als", *options],
        cwd=ROOT,
        env=environment,
        check=True,
    )


def mean(protocol: Protocol, scores: Scores) -> Gains:
    """Of all users who are judged."""
    matrix, total = protocol.data.matrix(), defaultdict[tuple[str, str], float](float)
    for start in range(0, len(protocol.judged), BLOCK):
        block = protocol.judged[start : start + BLOCK]
        for one, mine in zip(block, scores([one.user for one in block]), strict=True):
            seen = matrix.indices[matrix.indptr[one.user] : matrix.indptr[one.user + 1]]
            for what, gain in protocol.gains(one, seen, mine).items():
                total[what] += gain / len(protocol.judged)
    return dict(total)


def by_popularity(protocol: Protocol) -> Gains:
    popular = np.asarray(protocol.data.matrix().getnnz(axis=0), np.float32)
    return mean(protocol, lambda users: np.tile(popular, (len(users), 1)))


def by_als(protocol: Protocol, hyperparameters: als.Hyperparameters, seed: int) -> Gains:
    data, matrix = protocol.data, protocol.data.matrix()
    model = als.fit(data.interactions(), hyperparameters, seed)
    columns = data.items.rows(model.item_ids.ids)
    vectors = model.fold_in_many(matrix[:, columns], num_threads=0)

    def scores(users: list[int]) -> npt.NDArray[np.float32]:
        answer = np.full((len(users), len(data.items)), -np.inf, np.float32)
        answer[:, columns] = vectors[users] @ model.item_factors.T
        return answer

    return mean(protocol, scores)


def record(rows: list[Row], path: Path = RESULTS) -> None:
    """Merge rows by what they measure."""

    def what(row: Row) -> tuple[str, str, str, str]:
        return row.dataset, row.protocol, row.engine, row.metric

    before = msgspec.json.decode(path.read_bytes(), type=list[Row]) if path.exists() else []
    new = {what(row) for row in rows}
    merged = sorted([*(row for row in before if what(row) not in new), *rows], key=what)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(merged), indent=1) + b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=LOADERS, default="ml1m")
    parser.add_argument("--minutes", type=float, default=15.0, help="time budget of the search")
    parser.add_argument(
        "--factors",
        type=int,
        help="ALS_FACTORS of the search: it starts there, and its range reaches so far",
    )
    parser.add_argument("--threads", type=int, default=0, help="of the search; 0: one a core")
    parser.add_argument(
        "--hyperparameters",
        type=Path,
        help="take these instead of searching, and leave the defaults out",
    )
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="comma-separated")
    arguments = parser.parse_args()
    folder = data_folder()
    if folder is None or not (folder / FOLDERS[arguments.dataset]).is_dir():
        print(
            (
                f"skipped: there is no folder {FOLDERS[arguments.dataset]} in EDDYLINE_DATA "
                f"(default ../shared/data)"
            ),
            file=sys.stderr,
        )
        return
    name = arguments.dataset
    protocol = LOADERS[name](folder / FOLDERS[name])
    path = arguments.hyperparameters
    if path is None:
        path = hyperparameters_file(name)
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary)
            dataset_files.save(protocol.data, work / "dataset")
            search = Search(
                arguments.minutes, NEGATIVES.get(name, 0), arguments.threads, arguments.factors
            )
            tune(work / "dataset", path, work / "study.sqlite", search)
    tuned = als.hyperparameters(Settings(), path)
    options = (
        f"--hyperparameters {arguments.hyperparameters}"
        if arguments.hyperparameters
        else f"--minutes {arguments.minutes:g}"
    )
    if not arguments.hyperparameters:
        options += "".join(
            f" --{name} {value}"
            for name in ("factors", "threads")
            if (value := getattr(arguments, name))
        )
    dataset_option = f" --dataset {name}" if name != "ml1m" else ""
    command = f"python -m benchmarks.quality{dataset_option} {options}"
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    command += f" --seeds {arguments.seeds}" if seeds != list(SEEDS) else ""
    candidates = (
        {"als (given)": tuned}
        if arguments.hyperparameters
        else {"als (tuned)": tuned, "als (defaults)": als.Hyperparameters()}
    )
    runs: list[tuple[str, list[int], list[Gains]]] = [("popular", [], [by_popularity(protocol)])]
    runs += [
        (engine, seeds, [by_als(protocol, hyperparameters, seed) for seed in seeds])
        for engine, hyperparameters in candidates.items()
    ]
    rows = [
        Row(
            name,
            where,
            engine,
            metric,
            round(float(np.mean([gains[where, metric] for gains in of_seed])), 4),
            of_seeds,
            command,
        )
        for engine, of_seeds, of_seed in runs
        for where, metric in of_seed[0]
    ]
    record(rows)
    print(f"ALS: {tuned}")
    for row in rows:
        print(f"{row.dataset}  {row.protocol:32} {row.engine:16} {row.metric:8} {row.mean:.4f}")


if __name__ == "__main__":
    main()
