"""Fits the models of `python -m benchmarks.headline` before the cut, and measures their cost."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.ranking import headline_worlds, quality
from benchmarks.ranking.headline_worlds import FITTED, World
from core.settings import Settings
from training import als
from training.data import dataset, dataset_files
from training.two_tower.fit_types import FitOptions, Progress, TrainingData
from training.two_tower.hyperparameters import Hyperparameters

HYPERPARAMETERS = {
    name: quality.hyperparameters_file(f"headline-{name}") for name in headline_worlds.WORLDS
}
"""Files of the ALS hyperparameters that a search within the first 80% of each set found."""
TWO_TOWER = {
    "ml1m": Hyperparameters(epochs=20, candidates=1024),
    "retailrocket": Hyperparameters(epochs=10, dropout=0.5),
    "simulator": Hyperparameters(epochs=10),
}


class Costs(msgspec.Struct, frozen=True):
    """Costs of the fits of a seed.

    Seconds of processor time over all threads, and peak memory of the process, data set included,
    in MB.
    """

    als_cpu_s: float
    two_tower_cpu_s: float
    peak_mb: float
    threads: int


def fit(world: World, seed: int, threads: int, folder: Path) -> None:
    """Fit ALS and Two-Tower on what happened before the cut, into `folder`; costs.json last."""
    from training.two_tower import fit as two_tower

    settings = Settings()
    data = world.dataset(settings)
    split = world.split(data)
    began = time.process_time()
    model = als.fit(
        data.interactions(split.train),
        als.hyperparameters(settings, HYPERPARAMETERS[world.name]),
        seed,
        threads=threads,
    )
    model.save(folder / "als")
    fitted_als = time.process_time()

    def show(now: Progress) -> None:
        print(
            (
                f"  {world.name}, seed {seed}: epoch {now.epoch}, validation NDCG@10 "
                f"{now.ndcg:.4f}, {now.seconds:.0f} s"
            ),
            flush=True,
        )

    entries = world.catalogue(split.cut)
    towers = two_tower.fit(
        TrainingData(data, entries, settings.use_cases, split.train),
        TWO_TOWER[world.name],
        seed,
        FitOptions(threads, on_epoch=show),
    )
    towers.model.save(folder / "two_tower")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    costs = Costs(
        round(fitted_als - began, 1),
        round(time.process_time() - fitted_als, 1),
        round(peak),
        threads,
    )
    (folder / "costs.json").write_bytes(msgspec.json.encode(costs))


def tune(world: World, minutes: float, threads: int) -> None:
    """Search ALS hyperparameters within what happened before the cut."""
    settings = Settings()
    data = world.dataset(settings)
    early = world.table.filter(
        np.asarray(world.table["timestamp"].to_numpy() < world.split(data).cut)
    )
    with tempfile.TemporaryDirectory() as work:
        dataset_files.save(
            dataset.build([early], settings.use_cases, source=f"{world.name}, first {FITTED:.0%}"),
            Path(work) / "dataset",
        )
        quality.tune(
            Path(work) / "dataset",
            HYPERPARAMETERS[world.name],
            Path(work) / "study",
            quality.Search(minutes, negatives=0, threads=threads),
        )
