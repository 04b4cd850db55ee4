"""Measures one pass of the user tower: `python -m benchmarks.two_tower_pass`.

One thread, medians in microseconds of processor time:

value      the pass that serves, in numpy: 50 events, 64 dimensions, 2 layers, output of the last
           token
reference  the same tower in torch, one user

The weights are random: the cost does not depend on them. The target is below 1000 microseconds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import torch

from benchmarks.measurements import record
from models.content import ContentModel
from models.id_map import IdMap
from models.two_tower import TwoTowerFacts, TwoTowerModel, ages
from training.two_tower.network import Towers

ITEMS, EVENTS, ROUNDS = 10_000, 50, 500


def median(work: Callable[[], object]) -> float:
    """Microseconds of processor time of one call."""
    work()
    nanoseconds = []
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        work()
        nanoseconds.append(time.process_time_ns() - began)
    return float(np.median(nanoseconds)) / 1000


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    facts = TwoTowerFacts(
        dimension=64, layers=2, heads=2, history=EVENTS, items=ITEMS, event_types=["like"], roles=[]
    )
    towers = Towers(facts, np.zeros((ITEMS, 0), np.float32), 0.0).eval()
    arrays = towers.export()
    vectors = arrays.pop("id_vectors")
    del arrays["projection"]
    arrays["term_vectors"] = np.zeros((0, 64), np.float32)
    model = TwoTowerModel(
        facts, IdMap([str(row) for row in range(ITEMS)]), vectors, ContentModel.fit([]), arrays
    )
    rng = np.random.default_rng(1)
    rows, times, types = (
        rng.integers(0, ITEMS, EVENTS),
        np.sort(rng.uniform(1e9, 1.1e9, EVENTS)),
        np.zeros(EVENTS, np.int64),
    )
    nothing = np.zeros(64, np.float32)

    def in_torch() -> None:
        with torch.no_grad():
            towers.users(
                torch.from_numpy(vectors[rows][None]),
                torch.from_numpy(types[None]),
                torch.from_numpy(ages(times)[None]),
                torch.zeros(1, 0),
                torch.zeros(1, 0),
                torch.zeros(1, 64),
            )

    served = median(lambda: model.user_vector(model.item_vectors[rows], types, times, nothing))
    reference = median(in_torch)
    row = record(
        "two-tower-pass",
        served,
        "us",
        "the same tower in torch, one user",
        reference,
        "python -m benchmarks.two_tower_pass",
    )
    print(f"{row.value:.0f} us; in torch {row.reference_value:.0f} us")


if __name__ == "__main__":
    main()
