"""Would another blend do better for hot users? `python -m benchmarks.headline_fusions --keep FOLDER` asks the kept models.

`--keep` names where benchmarks.headline has kept its models. Mixtures in tenths of ALS, Two-Tower and one part more (--third) are put on
one scale in three ways: `min_max` and `rank` as served, and `zscore` (mean 0, deviation 1). Each is chosen by the hot users who are not
judged, as in benchmarks.headline; `best` is what the grid could have reached had the judged users chosen. Prints NDCG@10, writes no row.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import threadpoolctl

from benchmarks import headline_worlds, quality
from benchmarks.headline_worlds import World
from core import logs
from core.settings import Settings
from core.types import Request
from engines.base import NO_OPINION, NotApplicable, eligible
from engines.catalogue import Catalogue
from engines.fusion import SCALES
from engines.recommender import Recommender
from models.als import ALSModel
from models.bundle import Bundle
from models.content import ContentModel
from models.two_tower import TwoTowerModel
from training import evaluate, metrics
from training.popularity import popular

USERS = 300
"""Hot users of each side at most: a minute a seed on MovieLens 1M."""
K = 10
FUSIONS = (*SCALES, "zscore")


def scaled(fusion: str, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`scores (n,)` on the scale of `fusion`; what a part does not know counts as its last."""
    missing = np.flatnonzero(scores == NO_OPINION)
    if fusion in SCALES:
        out = np.empty(len(scores), np.float32)
        SCALES[fusion](scores.copy(), missing, out)  # type: ignore[index]
        out[missing] = 0.0
        return out
    known = np.where(scores == NO_OPINION, scores[scores != NO_OPINION].min(initial=0.0), scores)
    return (known - known.mean()) / max(float(known.std()), 1e-9)


def compare(world: World, keep: Path, seed: int, parts: list[str]) -> None:
    """Print one seed's table."""
    settings, folder = Settings(), keep / world.name / str(seed)
    data = world.dataset(settings, new_users=False)
    split = world.split(data)
    entries = world.catalogue(split.cut)
    content = ContentModel.fit(entries)
    models = {"als": ALSModel.load(folder / "als"), "two_tower": TwoTowerModel.load(folder / "two_tower"), "content": content}
    recommender = Recommender(
        Bundle.of(catalogue=entries, **models), Catalogue.of(entries), popular(data, settings, split.train).scores, settings
    )
    everyone = evaluate.judge(data, split, content, settings, len(data.users), seed)
    judged = set(evaluate.judge(data, split, content, settings, len(everyone.users) // 2, seed).users.tolist())
    mixtures = np.array([each for each in product(range(11), repeat=len(parts)) if sum(each) == 10], np.float32) / 10
    alive = np.flatnonzero(recommender.catalogue.alive)
    gains: dict[tuple[bool, str], list[npt.NDArray[np.float64]]] = defaultdict(list)
    for at in np.flatnonzero(everyone.segments == "hot").tolist():
        votes = int(everyone.users[at]) not in judged
        state, request = everyone.states[at], Request(filters=everyone.filters[at])
        if len(gains[votes, FUSIONS[0]]) == USERS:
            continue
        try:
            scores = [recommender.engines[name].score(state, request).scores[alive] for name in parts]
        except NotApplicable:
            continue
        wanted = np.zeros(len(recommender.catalogue.ids), np.bool_)
        wanted[recommender.catalogue.rows_of(everyone.items.ids[row] for row in everyone.held_out[at].indices)] = True
        closed = ~eligible(recommender.catalogue, state, request)[alive]
        counts = np.full(len(mixtures), max(int(wanted.sum()), 1))
        for fusion in FUSIONS:
            blended = mixtures @ np.array([scaled(fusion, each) for each in scores])
            blended[:, closed] = -np.inf
            top = np.argsort(-blended, axis=1, kind="stable")[:, :K]
            gains[votes, fusion].append(metrics.ndcg(wanted[alive][top], counts, K))
    for fusion in FUSIONS:
        voted, found = np.mean(gains[True, fusion], axis=0), np.mean(gains[False, fusion], axis=0)
        chosen = int(voted.argmax())
        alone = max(float(found[np.flatnonzero(mixtures[:, place] == 1)[0]]) for place in range(len(parts)))
        weights = ", ".join(f"{name} {weight:.1f}" for name, weight in zip(parts, mixtures[chosen].tolist(), strict=True))
        print(
            f"{world.name}, seed {seed}, {fusion:8} {weights}: {found[chosen]:.4f}, {found[chosen] / alone:.3f} of the best part; "
            f"best {found.max() / alone:.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, metavar="FOLDER", help="where benchmarks.headline has kept its models")
    parser.add_argument("--dataset", choices=headline_worlds.WORLDS, default="simulator")
    parser.add_argument("--seeds", default=",".join(map(str, quality.SEEDS)), help="comma-separated")
    parser.add_argument("--third", choices=("content_based", "popular"), default="popular", help="the part beside ALS and Two-Tower")
    chosen = parser.parse_args()
    logs.configure("warning")
    world = headline_worlds.load(chosen.dataset, quality.data_folder() or Path())
    with threadpoolctl.threadpool_limits(1, "blas"):
        for seed in chosen.seeds.split(","):
            compare(world, chosen.keep, int(seed), ["als", "two_tower", chosen.third])


if __name__ == "__main__":
    main()
