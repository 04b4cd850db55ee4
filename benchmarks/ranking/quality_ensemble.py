"""Measures ranking quality of Two-Tower and of the ensemble.

`python -m benchmarks.quality_ensemble` adds its rows to results/quality.json. The protocols are
those of quality_protocols. Every score comes from the engines that serve, of a user's training
items alone, without a profile. `ensemble` is the blend of the settings; `ensemble (chosen)` the one
that training.blend makes of how the engines rank the last training items of some users. These items
are in no model that chooses: Two-Tower never trains on them, as they decide when it stops, and ALS
is fitted once without them and once with them. The test rows choose nothing, hyperparameters
neither.

`--dataset` and `--seeds` select a part; `--keep FOLDER` stores the fitted models, so that blends
can be measured again without fits.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.update(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np

from benchmarks.ranking import quality
from benchmarks.ranking.quality import Row
from benchmarks.ranking.quality_models import Fit, Models, models
from benchmarks.ranking.quality_protocols import FOLDERS, LOADERS, Gains, Protocol
from core.settings import Settings
from core.types import Request, UserState
from engines.base import NotApplicable, Scoring
from engines.blending.ensemble import EnsembleEngine, EnsembleScoring
from engines.builder import build
from engines.engine_builders import blend_of
from models.bundle import Bundle
from models.ensemble import Blend
from training import als
from training.blend.choice import ENGINES
from training.blend.grid import BlendChoice, BlendSearch
from training.data.popularity import popular
from training.two_tower.hyperparameters import Hyperparameters

CHOOSING_USERS = 3000
"""Users who choose a blend."""
ROWS = {"popular": "popular (as served)"}
"""Engine -> its name in quality.json, where `popular` counts every event alike, as published; what
serves forgets by half-lives.
"""
FITS = {
    "ml1m": Fit(
        als=als.hyperparameters(Settings(), quality.hyperparameters_file("ml1m")),
        two_tower=Hyperparameters(learning_rate=0.002, epochs=16, candidates=1024),
    ),
    "sports": Fit(
        als=als.hyperparameters(Settings(), quality.hyperparameters_file("sports")),
        two_tower=Hyperparameters(dropout=0.5, learning_rate=0.002, epochs=10, candidates=2048),
        choosing_users=40_000,
    ),
    "gowalla": Fit(
        als=als.hyperparameters(Settings(), quality.hyperparameters_file("gowalla")),
        two_tower=Hyperparameters(
            dropout=0.1, learning_rate=0.003, epochs=16, candidates=2048, heads=1, layers=1
        ),
        ordered=False,
    ),
}


class Engines:
    """The engines of a protocol's models, for users with their events in `where`."""

    def __init__(self, protocol: Protocol, fitted: Models, *, before: bool) -> None:
        """`before`: as of the events before those that were held out for the choice."""
        data = protocol.data
        self.data, self.settings = data, Settings()
        self.where = fitted.before if before else np.ones(data.events, np.bool_)
        parts: dict[str, Any] = {
            "als": fitted.als_before if before else fitted.als,
            "two_tower": fitted.two_tower,
            "content": protocol.content,
        }
        at_hand = popular(data, self.settings, self.where).scores
        self.recommender = build(
            Bundle.of(catalogue=protocol.entries, **parts),
            popularity=at_hand,
            settings=self.settings,
        )
        self.catalogue = self.recommender.catalogue
        self.rows = np.array(self.catalogue.rows_of(data.items.ids))
        """The catalogue's rows of the data's items."""
        if len(self.rows) != len(data.items):
            raise ValueError("an item with training rows is in no model")

    def state(self, user: int) -> UserState:
        """The user in this row, with every event."""
        return self.data.state(user, self.where, self.data.events)

    def seen(self, user: int) -> np.ndarray:
        """Rows of the data's items that the user has."""
        return self.data.item[self.data.of_user(user, self.where)]

    def scoring(self, name: str, state: UserState) -> Scoring | None:
        """None where the engine cannot score for this user."""
        try:
            return self.recommender.engines[name].score(state, Request())
        except NotApplicable:
            return None


def choose(protocol: Protocol, fitted: Models, seed: int) -> BlendChoice:
    """The blend that is best for the items held out from the models' training."""
    served = Engines(protocol, fitted, before=True)
    names = [name for name in ENGINES if name != "content_based" or protocol.entries]
    search = BlendSearch(names)
    drawn = np.random.default_rng(seed).permutation(len(fitted.held_out.users))[:CHOOSING_USERS]
    for user, item in zip(
        fitted.held_out.users[drawn].tolist(), fitted.held_out.items[drawn].tolist(), strict=True
    ):
        state = served.state(user)
        scorings = [
            scoring for name in names if (scoring := served.scoring(name, state)) is not None
        ]
        allowed, relevant = np.zeros((2, len(served.catalogue.ids)), np.bool_)
        allowed[served.rows] = True
        allowed[served.rows[served.seen(user)]] = False
        relevant[served.rows[item]] = True
        search.add_user(
            scorings if len(scorings) == len(names) else [],
            allowed,
            relevant,
            served.catalogue,
            state.events,
        )
    return search.choose()


def judged(protocol: Protocol, fitted: Models, blends: dict[str, Blend]) -> dict[str, Gains]:
    """Engine or blend -> mean gains over all users who are judged.

    Where an engine cannot score for a user, no item has a score.
    """
    served = Engines(protocol, fitted, before=False)
    engines = served.recommender.engines
    ensembles = {name: EnsembleEngine(engines, candidate) for name, candidate in blends.items()}
    parts = [
        name for name in ENGINES if any(name in ensemble.shares for ensemble in ensembles.values())
    ]
    total: dict[str, dict[tuple[str, str], float]] = {
        name: defaultdict(float) for name in (*parts, *ensembles)
    }
    for one in protocol.judged:
        seen = served.seen(one.user)
        for name, scores in _scores(served, parts, ensembles, served.state(one.user)):
            for what, gain in protocol.gains(one, seen, scores[served.rows]).items():
                total[name][what] += gain / len(protocol.judged)
    return {name: dict(gains) for name, gains in total.items()}


def _scores(
    served: Engines, parts: list[str], ensembles: dict[str, EnsembleEngine], state: UserState
) -> Iterator[tuple[str, np.ndarray]]:
    nothing = np.full(len(served.catalogue.ids), -np.inf, np.float32)
    scorings = {name: served.scoring(name, state) for name in parts}
    for name, scoring in scorings.items():
        yield name, nothing if scoring is None else scoring.scores
    for name, ensemble in ensembles.items():
        mine = {
            part: scoring for part in ensemble.shares if (scoring := scorings[part]) is not None
        }
        yield (
            name,
            EnsembleScoring(ensemble, mine, state.events).scores
            if len(mine) == len(ensemble.shares)
            else nothing,
        )


def measured(
    name: str, protocol: Protocol, seed: int, folder: Path, threads: int
) -> dict[str, Gains]:
    """One seed: fits that are not in `folder`, the choice, the judgement."""
    began = time.monotonic()
    fitted = models(protocol, FITS[name], seed, folder, threads)
    best = choose(protocol, fitted, seed)
    gains_of = judged(
        protocol, fitted, {"ensemble": blend_of(Settings()), "ensemble (chosen)": best.blend}
    )
    print(
        f"{name}, seed {seed}, {time.monotonic() - began:.0f} s: chosen {best.facts()}", flush=True
    )
    for engine, gains in gains_of.items():
        print(
            f"  {engine:18}",
            "  ".join(
                f"{protocol}: {metric} {value:.4f}" for (protocol, metric), value in gains.items()
            ),
            flush=True,
        )
    return gains_of


def rows(
    name: str, runs: dict[int, dict[str, Gains]], command: str, users: int | None
) -> list[Row]:
    """The mean of the seeds in which the engine was judged: content and popularity are only where
    they are parts of the blend chosen.

    `users`: how many were judged, if not all: these are rows of their own.
    """
    merged = []
    for engine in dict.fromkeys(engine for run in runs.values() for engine in run):
        mine = {seed: run[engine] for seed, run in runs.items() if engine in run}
        for protocol, metric in next(iter(mine.values())):
            mean = float(np.mean([gains[protocol, metric] for gains in mine.values()]))
            where = protocol if users is None else f"{protocol}, {users:,} users"
            merged.append(
                Row(
                    name,
                    where,
                    ROWS.get(engine, engine),
                    metric,
                    round(mean, 4),
                    list(mine),
                    command,
                )
            )
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", choices=LOADERS, action="append", help="only this one; may come twice"
    )
    parser.add_argument(
        "--seeds", default=",".join(map(str, quality.SEEDS)), help="comma-separated"
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="of torch and the solver; 0: one a core"
    )
    parser.add_argument("--users", type=int, help="judge so many, drawn at random, instead of all")
    parser.add_argument(
        "--keep",
        type=Path,
        help="folder of the fitted models: those that are there are not fitted again",
    )
    arguments = parser.parse_args()
    data = quality.data_folder()
    if data is None:
        print("skipped: EDDYLINE_DATA names no folder (default ../shared/data)", file=sys.stderr)
        return
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    for name in arguments.dataset or LOADERS:
        command = (
            f"python -m benchmarks.quality_ensemble --dataset {name} --seeds {arguments.seeds}"
        )
        protocol, runs = LOADERS[name](data / FOLDERS[name]), {}
        if arguments.users is not None:
            command += f" --users {arguments.users}"
            drawn = np.random.default_rng(0).permutation(len(protocol.judged))[: arguments.users]
            protocol = replace(
                protocol, judged=[protocol.judged[place] for place in drawn.tolist()]
            )
        with tempfile.TemporaryDirectory() as temporary:
            for seed in seeds:
                runs[seed] = measured(
                    name,
                    protocol,
                    seed,
                    (arguments.keep or Path(temporary)) / f"{name}-{seed}",
                    arguments.threads,
                )
        quality.record(rows(name, runs, command, arguments.users))


if __name__ == "__main__":
    main()
