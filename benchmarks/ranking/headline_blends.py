"""Compares blends for hot users: `python -m benchmarks.headline_blends --keep FOLDER`.

`--keep` names the folder in which benchmarks.headline stored its models. Half of the hot users
(`--segments` for others) make a blend of ALS, Two-Tower, content and popularity (`--parts` for
fewer) in each way: the best blend candidate in tenths on one scale, `min_max` and `rank`, and
learned weights. The other half, whom benchmarks.headline judges, measures it beside the best single
engine; `best` is the best candidate for the judging users themselves. Prints NDCG@10, writes no
row.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from benchmarks.ranking import headline_worlds, quality
from benchmarks.ranking.headline_worlds import World
from core.process import logs
from core.settings import Settings
from core.types import Request
from engines.base import NotApplicable, eligible
from engines.builder import build
from engines.catalogue import Catalogue
from models.als import ALSModel
from models.bundle import Bundle
from models.content import ContentModel
from models.two_tower import TwoTowerModel
from training.blend import choice as blend
from training.blend import learned as blend_learned
from training.blend.grid import BlendSearch
from training.data.popularity import popular
from training.evaluation import population

K = 10


def searches(
    world: World, keep: Path, seed: int, parts: list[str], segments: list[str]
) -> tuple[BlendSearch, BlendSearch]:
    """The blends scored by users who are not judged, and by those who are; every part can score
    each of them.
    """
    settings, folder = Settings(), keep / world.name / str(seed)
    data = world.dataset(settings, new_users=False)
    split = world.split(data)
    entries = world.catalogue(split.cut)
    content = ContentModel.fit(entries)
    models: dict[str, Any] = {
        "als": ALSModel.load(folder / "als"),
        "two_tower": TwoTowerModel.load(folder / "two_tower"),
        "content": content,
    }
    recommender = build(
        Bundle.of(catalogue=entries, **models),
        Catalogue.of(entries),
        popular(data, settings, split.train).scores,
        settings,
    )
    everyone = population.draw(
        data, split, content, settings, population.Sample(len(data.users), seed)
    )
    apart = set(
        population.draw(
            data, split, content, settings, population.Sample(len(everyone.users) // 2, seed)
        ).users.tolist()
    )
    choosing, judging = BlendSearch(parts), BlendSearch(parts)
    for at in np.flatnonzero(np.isin(everyone.segments, segments)).tolist():
        state, request = everyone.states[at], Request(filters=everyone.filters[at])
        try:
            scorings = [recommender.engines[name].score(state, request) for name in parts]
        except NotApplicable:
            continue
        relevant = np.zeros(len(recommender.catalogue.ids), np.bool_)
        relevant[
            recommender.catalogue.rows_of(
                everyone.items.ids[row] for row in everyone.held_out[at].indices
            )
        ] = True
        eligible_rows = eligible(recommender.catalogue, state, request)
        search = judging if int(everyone.users[at]) in apart else choosing
        search.add_user(scorings, eligible_rows, relevant, recommender.catalogue, state.events)
    return choosing, judging


def compare(name: str, seed: int, choosing: BlendSearch, judging: BlendSearch) -> None:
    """Print one seed's lines."""
    choosing_gains, judging_gains, blends = (
        choosing.gains().mean(axis=0),
        judging.gains().mean(axis=0),
        choosing.blends,
    )
    alone = max(
        value
        for blend_candidate, value in zip(blends, judging_gains.tolist(), strict=True)
        if max(blend_candidate.weights.values()) == 1
    )

    def line(way: str, value: float, weights: dict[str, float]) -> None:
        shares = ", ".join(f"{part} {weight:.2g}" for part, weight in weights.items())
        print(
            (
                f"{name}, seed {seed}, {way:8} {value:.4f}, {value / alone:.3f} of the best "
                f"engine: {shares}"
            ),
            flush=True,
        )

    print(
        (
            f"{name}, seed {seed}: {len(choosing.examples)} users choose, "
            f"{len(judging.examples)} judge; the best engine {alone:.4f}"
        ),
        flush=True,
    )
    for method in dict.fromkeys(candidate.method for candidate in blends):
        mine = np.array([candidate.method == method for candidate in blends])
        at = int(np.where(mine, choosing_gains, -1.0).argmax())
        line(method, judging_gains[at], blends[at].weights)
    best = int(judging_gains.argmax())
    line("best", judging_gains[best], blends[best].weights)
    learned = blend_learned.fit(choosing.engines, choosing.examples)
    if learned is not None:
        gains = blend_learned.ndcg(choosing.engines, learned, judging.examples, K)
        line("learned", float(gains.mean()), blend_learned.shares(learned, judging.examples))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--keep",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="where benchmarks.headline stored its models",
    )
    parser.add_argument("--dataset", choices=headline_worlds.WORLDS, default="simulator")
    parser.add_argument(
        "--seeds", default=",".join(map(str, quality.SEEDS)), help="comma-separated"
    )
    parser.add_argument("--parts", default=",".join(blend.ENGINES), help="comma-separated")
    parser.add_argument("--segments", default="hot", help="comma-separated: cold, warm, hot")
    arguments = parser.parse_args()
    logs.configure("warning")
    world = headline_worlds.load(arguments.dataset, quality.data_folder() or Path())
    with threadpoolctl.threadpool_limits(1, "blas"):
        for seed in map(int, arguments.seeds.split(",")):
            parts, segments = arguments.parts.split(","), arguments.segments.split(",")
            compare(world.name, seed, *searches(world, arguments.keep, seed, parts, segments))


if __name__ == "__main__":
    main()
