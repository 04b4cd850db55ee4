"""Measures a read through the ensemble beside the reads of its parts.

One thread, medians in microseconds of processor time:

python -m benchmarks.ensemble --items 10000 --factors 64 --history 50

The numbers of the models are random: the cost of a read does not depend on them.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import scipy.sparse as sp

from benchmarks.measurements import record
from core.process import logs
from core.settings import Settings
from core.types import HistoryEvent, Item, Request, UserState
from engines.builder import build
from engines.recommender import Recommender
from models.als import ALSModel
from models.bundle import Bundle
from models.content import ContentModel
from models.ensemble import Blend, Learned
from models.id_map import IdMap
from models.two_tower import TwoTowerFacts, TwoTowerModel, shapes

_ENDS = (0.3, 0.1, 0.1), (0.1, 0.1, 0.3)
LEARNED = Blend(
    weights={"als": 1, "two_tower": 1, "content_based": 1, "popular": 1},
    method="learned",
    learned=Learned(
        few=5,
        many=500,
        weights=dict.fromkeys(("als", "two_tower", "content_based", "popular"), _ENDS),
    ),
)


def measured(calls: dict[str, Callable[[], object]], repeats: int = 400) -> dict[str, float]:
    """Median microseconds of each call; they take turns, so that other work on
    the machine slows all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            times[name].append(time.thread_time() - start)
    return {name: float(np.median(seconds)) * 1e6 for name, seconds in times.items()}


def two_tower(
    ids: IdMap, words: ContentModel, dimension: int, random: np.random.Generator
) -> TwoTowerModel:
    """A model of the usual size."""
    vocabulary = ContentModel(
        words.terms, words.idf, IdMap([]), sp.csr_matrix((0, len(words.terms)), dtype=np.float32)
    )
    facts = TwoTowerFacts(
        dimension=dimension,
        layers=2,
        heads=2,
        history=50,
        items=len(ids),
        event_types=["view", "like"],
        roles=[],
    )
    arrays = {
        name: random.normal(size=shape).astype(np.float32) / np.float32(8)
        for name, shape in shapes(facts, len(words.terms)).items()
    }
    return TwoTowerModel(
        facts, ids, random.normal(size=(len(ids), dimension)).astype(np.float32), vocabulary, arrays
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("items", 10_000), ("factors", 64), ("history", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    logs.configure("info")
    random = np.random.default_rng(1)
    items = [
        Item(
            item_id=f"item-{row}",
            item_type="startup",
            title=f"Item {row}",
            categories=[f"kind-{row % 30}"],
            created_at=3600.0 * row,
        )
        for row in range(arguments.items)
    ]
    ids, words = IdMap([item.item_id for item in items]), ContentModel.fit(items)
    factors = random.normal(size=(arguments.items, arguments.factors)).astype(np.float32)
    bundle = Bundle.of(
        "benchmark",
        items,
        als=ALSModel(ids, factors, regularization=0.1, alpha=10),
        two_tower=two_tower(ids, words, arguments.factors, random),
        content=words,
    )
    popularity = {"unlabelled": [(item.item_id, 1e6 / (row + 1)) for row, item in enumerate(items)]}
    recommender = build(bundle, popularity=popularity, settings=Settings())
    learned = build(
        replace(bundle, parts={**bundle.parts, "ensemble": LEARNED}),
        popularity=popularity,
        settings=Settings(),
    )
    touched = random.choice(arguments.items, arguments.history, replace=False)
    history = [
        HistoryEvent(timestamp=1_700_000_000 + 60 * at, event_type="view", item_id=f"item-{row}")
        for at, row in enumerate(touched)
    ]
    state = UserState(
        user_id="somebody",
        events=arguments.history,
        counts={"view": arguments.history},
        history=history,
    )

    def read(engine: str, served: Recommender = recommender, **more: float) -> Callable[[], object]:
        request = Request(engine=engine, **more)  # type: ignore[arg-type]
        return lambda: served.recommend(state, request)

    def score(engine: str) -> Callable[[], object]:
        return lambda: recommender.engines[engine].score(state, Request())

    medians = measured(
        {
            "read of ALS": read("als"),
            "read of Two-Tower": read("two_tower"),
            "read of the ensemble": read("ensemble"),
            "read of a learned blend of four engines": read("ensemble", learned),
            "read of the ensemble, diversity 0.3": read("ensemble", diversity=0.3),
            "read of the ensemble, a tenth explored": read("ensemble", explore=0.1),
            "scores of ALS": score("als"),
            "scores of Two-Tower": score("two_tower"),
            "scores of the ensemble": score("ensemble"),
        }
    )
    for name, microseconds in medians.items():
        print(f"{name:44s} {microseconds:8.0f}")
    parts = medians["read of ALS"] + medians["read of Two-Tower"]
    of_parts = medians["scores of ALS"] + medians["scores of Two-Tower"]
    print(f"{'scaling and summing':44s} {medians['scores of the ensemble'] - of_parts:8.0f}")
    command = (
        f"python -m benchmarks.ensemble --items {arguments.items} --factors {arguments.factors} "
        f"--history {arguments.history}"
    )
    record(
        "ensemble-read",
        medians["read of the ensemble"],
        "us a read",
        "a read of ALS and one of Two-Tower",
        parts,
        command,
    )


if __name__ == "__main__":
    main()
