"""Compares the ALS of Spark MLlib with that of `implicit` on ML-1M: `python -m
benchmarks.spark_quality`.

Ratings of 4 and 5 that have a time, all of the same weight; both engines are fitted on the first
80% by time. NDCG@10 of the users who have a new item after it, by the recommender that serves, so
by a fold-in of each user's items at the cut.

Each engine has the regularization that is best for it. It is chosen by users' last items before the
cut, held out and ranked among the whole catalogue: the judged events choose nothing. Alpha is
chosen in the same way by `implicit`, and is the same for both.

Uses ML-1M of the folder that EDDYLINE_DATA names. Spark runs at SPARK_MASTER (default: local[2]).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.ranking import headline_worlds
from benchmarks.ranking.headline_worlds import World
from benchmarks.ranking.quality import data_folder
from core.process import logs
from core.settings import Settings
from models.als import ALSModel
from models.bundle import Bundle
from models.content import ContentModel
from training import als
from training.als import Hyperparameters
from training.data import validation
from training.data.dataset import Bools, Dataset, Split
from training.data.popularity import popular
from training.data.validation import Validation
from training.evaluation import evaluate, population
from training.evaluation.evaluate import Inputs
from training.spark import fit as spark_fit
from training.spark import session
from training.spark.events import TableEvents
from training.spark.session import Cluster

ALPHAS = (1.0, 2.0, 4.0, 8.0)
REGULARIZATIONS = (3.0, 10.0, 20.0, 40.0, 80.0)
SEED = 1


class Engines:
    """Both engines on the same events."""

    def __init__(self, cluster: Cluster, settings: Settings, data: Dataset, work: Path) -> None:
        self._cluster, self._settings, self._data, self._work = cluster, settings, data, work

    def implicit(self, where: Bools, hyperparameters: Hyperparameters) -> ALSModel:
        return als.fit(self._data.interactions(where), hyperparameters, SEED)

    def spark(self, where: Bools, hyperparameters: Hyperparameters) -> ALSModel:
        data, path = self._data, self._work / "events.parquet"
        users, items = np.array(data.users.ids), np.array(data.items.ids)
        pq.write_table(
            pa.table(
                {
                    "user_id": users[data.user[where]],
                    "item_id": items[data.item[where]],
                    "event_type": np.array(data.event_types)[data.event_type[where]],
                    "timestamp": data.timestamp[where],
                }
            ),
            path,
        )
        training = spark_fit.TrainingEvents(TableEvents(path), self._settings.use_cases)
        return spark_fit.fit(self._cluster, training, hyperparameters, SEED).model


def held_out_ndcg(model: ALSModel, data: Dataset, last: Validation) -> float:
    """NDCG@10 of the held-out items, by users who are folded in."""
    rows = model.item_ids.rows(data.items.ids)
    shown = np.flatnonzero(rows >= 0)
    weights = last.user_items[:, shown].tocoo()
    ordered = type(last.user_items)(
        (weights.data, (weights.row, rows[shown][weights.col])),
        shape=(len(data.users), len(model.item_ids)),
    )
    vectors = model.fold_in_many(ordered, 0)
    better, candidates = validation.ranks(
        last, vectors, model.item_factors, np.arange(len(data.users), dtype=np.int32), rows
    )
    return float(validation.gains(better, candidates, 0)[1].mean())


def judged_ndcg(
    world: World, data: Dataset, split: Split, settings: Settings, model: ALSModel
) -> tuple[float, int]:
    """NDCG@10 of the served ALS after the cut, and the number of judged users."""
    catalogue = world.catalogue(split.cut)
    content = ContentModel.fit(catalogue)
    sample = population.Sample(10_000, SEED)
    judged = population.draw(data, split, content, settings, sample)
    popularity = popular(data, settings, split.train).scores
    evaluation = evaluate.evaluate(
        Bundle.of("spark", catalogue=catalogue, als=model, content=content),
        Inputs(catalogue, popularity, data, split, settings),
        judged,
        ("als",),
    )
    return evaluation.mean("als", "ndcg@10"), len(judged.users)


def compare(
    folder: Path,
    hyperparameters: Hyperparameters,
    alphas: Sequence[float],
    values: Sequence[float],
) -> None:
    """Tune both engines, judge both, and print the ratio."""
    settings = Settings(spark_master=os.environ.get("SPARK_MASTER", "local[2]"))
    world = headline_worlds.load("ml1m", folder)
    data = world.dataset(settings)
    split = world.split(data)
    last = validation.leave_one_out(data, SEED, where=split.train)
    pairs = data.user.astype(np.int64) * len(data.items) + data.item
    held_out = last.users.astype(np.int64) * len(data.items) + last.items
    known = split.train & ~np.isin(pairs, held_out)
    with session.cluster(settings) as cluster, tempfile.TemporaryDirectory() as work:
        engines = Engines(cluster, settings, data, Path(work))
        scores = {}
        for alpha in alphas:
            for value in values:
                tried = _replace(hyperparameters, alpha, value)
                scores[alpha, value] = held_out_ndcg(engines.implicit(known, tried), data, last)
                print(
                    f"  implicit alpha {alpha:g} regularization {value:g}: "
                    f"{scores[alpha, value]:.4f}",
                    flush=True,
                )
        alpha, of_implicit = max(scores, key=lambda choice: scores[choice])
        by_value = {}
        for value in values:
            began = time.monotonic()
            model = engines.spark(known, _replace(hyperparameters, alpha, value))
            by_value[value] = held_out_ndcg(model, data, last)
            print(
                f"  spark    alpha {alpha:g} regularization {value:g}: {by_value[value]:.4f} "
                f"({time.monotonic() - began:.0f} s)",
                flush=True,
            )
        of_spark = max(by_value, key=lambda value: by_value[value])
        results = {}
        for name, engine, value in (
            ("implicit", engines.implicit, of_implicit),
            ("spark", engines.spark, of_spark),
            ("spark, as tuned for implicit", engines.spark, of_implicit),
        ):
            model = engine(split.train, _replace(hyperparameters, alpha, value))
            results[name], users = judged_ndcg(world, data, split, settings, model)
            print(
                f"{name}: alpha {alpha:g}, regularization {value:g}, NDCG@10 {results[name]:.4f} "
                f"of {users} users",
                flush=True,
            )
    print(f"spark / implicit: {results['spark'] / results['implicit']:.3f} (target: 0.97 at least)")


def _replace(base: Hyperparameters, alpha: float, regularization: float) -> Hyperparameters:
    return Hyperparameters(
        factors=base.factors,
        iterations=base.iterations,
        alpha=alpha,
        regularization=regularization,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--alpha", type=float, nargs="+", default=ALPHAS)
    parser.add_argument("--regularization", type=float, nargs="+", default=REGULARIZATIONS)
    arguments = parser.parse_args()
    logs.configure("warning")
    folder = data_folder()
    if folder is None:
        print("EDDYLINE_DATA names no folder with ml1m/")
        return
    hyperparameters = Hyperparameters(factors=arguments.factors, iterations=arguments.iterations)
    compare(folder, hyperparameters, arguments.alpha, arguments.regularization)


if __name__ == "__main__":
    main()
