"""Compares a live model with a retrained one: `python -m benchmarks.live_vs_retrained`.

On MovieLens 1M and RetailRocket, four recommenders rank the new interactions of the last tenth of
the events, by time; all of them know what a user has by then:

    frozen      ALS fitted on the first 80%, with the user vectors of the fit: a user who came later
                has none
    users only  the same item factors; users folded in from all of the first 90%, as live workers do
    live        the same, and the items that came since with factors from the users who touched them
    retrained   ALS fitted on the first 90%; users folded in as serving does

Judged are users with an event in the first 90% who interacted with another item after it; NDCG@10
over the whole catalogue minus what the user has. New items seldom make a list of ten; the quality
of their factors shows in the place, among all items by score, of those that the user interacted
with: 0 is the first, 0.5 is chance. Every list comes from engines.recommender.Recommender, the path
that serves; only what the ALS engine itself ranks counts. Hyperparameters: those that `python -m
training tune` finds. ml1m-hyperparameters.json are of another split of the same events;
retailrocket-hyperparameters.json were found within the first 80%. EDDYLINE_DATA names the folder of
the data (default: ../shared/data).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import scipy.sparse as sp
import threadpoolctl

from benchmarks import measurements
from benchmarks.ranking import quality
from benchmarks.ranking.live_world import DATASETS, FIRST, World, cut_world, timed_events
from core.process import logs
from core.settings import Settings
from core.types import Filters, LiveVector, Request
from engines import fold
from engines.base import item_weights
from engines.builder import build, with_new_items
from engines.catalogue import Catalogue
from models.als import ALSModel
from models.als.new_items import NewItemFactors
from models.bundle import Bundle
from models.id_map import IdMap
from training import als
from training.data import dataset, dataset_files, events
from training.evaluation import metrics

SEEDS = (1, 2, 3)
K = 10
VARIANTS = ("frozen", "users only", "live", "retrained")
COMMAND = "python -m benchmarks.live_vs_retrained"
PLACE = "new items taken"
Vectors = Mapping[str, npt.NDArray[np.float32]]
"""User -> ALS vector."""
PROTOCOL = "fit on 80% by time, 10% live, rank the last 10%"


def fitted(
    world: World, where: dataset.Bools, hyperparameters: als.Hyperparameters, seed: int
) -> ALSModel:
    return als.fit(world.data.interactions(where), hyperparameters, seed)


def new_item_factors(
    model: ALSModel, world: World, settings: Settings, vectors: Vectors
) -> NewItemFactors:
    """The items that the model does not know, from the users who touched them, as live workers keep
    them.
    """
    touched: dict[str, dict[str, float]] = {}
    for state in world.states:
        for item_id, weight in item_weights(state.history, settings.use_cases).items():
            if item_id not in model.item_ids and state.user_id in vectors:
                touched.setdefault(item_id, {})[state.user_id] = weight
    if not touched:
        return NewItemFactors.none()
    columns = {user_id: column for column, user_id in enumerate(vectors)}
    item_users = sp.dok_matrix((len(touched), len(columns)), dtype=np.float32)
    for row, listed in enumerate(touched.values()):
        for user_id in sorted(listed, key=lambda user_id: (-listed[user_id], user_id))[
            : settings.young_item_users
        ]:
            item_users[row, columns[user_id]] = listed[user_id]
    factors = model.fold_items_in(item_users.tocsr(), np.stack(list(vectors.values())))
    return NewItemFactors(
        IdMap(list(touched)),
        factors,
        fold.made_with(model, settings.use_cases, settings.history_cap),
    )


def live_vectors(model: ALSModel, world: World, settings: Settings) -> Vectors:
    """User -> vector, of those with an item that the model knows."""
    vectors = fold.vectors(model, settings.use_cases, [state.history for state in world.states])
    return {
        state.user_id: vector
        for state, vector in zip(world.states, vectors, strict=True)
        if vector.any()
    }


def ranked(
    model: ALSModel,
    world: World,
    settings: Settings,
    vectors: Vectors,
    new_items: NewItemFactors,
) -> metrics.Rows:
    """(m, K) int32 rows of the items that the ALS engine shows each judged user, whose vector lies
    in Redis as current.
    """
    catalogue = Catalogue.of([], world.data.items.ids)
    recommender = build(Bundle.of("v", als=model), catalogue, {}, settings)
    recommender = with_new_items(recommender, new_items)
    lists = np.full((len(world.users), K), -1, np.int32)
    for place, user in enumerate(world.users):
        state = world.states[user]
        vector = vectors.get(state.user_id)
        if vector is None:
            continue
        stored = LiveVector(
            "v", recommender.made_with, state.events, vector.astype("<f4").tobytes()
        )
        filters = Filters(available_only=False, exclude_items=world.forgotten[place])
        request = Request(limit=K, filters=filters, engine="als", reasons=False)
        answer = recommender.recommend(msgspec.structs.replace(state, als=stored), request)
        own = [line.item_id for line in answer.recommendations if line.method == "als"]
        lists[place, : len(own)] = world.data.items.rows(own)
    return lists


def places(
    model: ALSModel,
    world: World,
    vectors: Vectors,
    new_items: NewItemFactors,
) -> list[float]:
    """The place of each item that came in the live tenth and that a user interacted with after it.

    A place is the share of items that score higher for that user.
    """
    factors = (
        np.vstack([model.item_factors, new_items.factors]) if new_items else model.item_factors
    )
    row = {item_id: row for row, item_id in enumerate([*model.item_ids.ids, *new_items.ids.ids])}
    came = set(world.came)
    shares = []
    for place, user in enumerate(world.users):
        vector = vectors.get(world.states[user].user_id)
        later = world.held_out.indices[
            world.held_out.indptr[place] : world.held_out.indptr[place + 1]
        ]
        new = [
            row[item_id]
            for item_id in (world.data.items.ids[item] for item in later)
            if item_id in came and item_id in row
        ]
        if vector is not None and new:
            scores = factors @ vector
            shares += [float((scores > scores[at]).mean()) for at in new]
    return shares


def compare(
    world: World, settings: Settings, hyperparameters: als.Hyperparameters, seed: int
) -> dict[tuple[str, str], float]:
    """(variant, group) -> NDCG@10, and (variant, PLACE)."""
    frozen = fitted(world, world.early, hyperparameters, seed)
    retrained = fitted(world, world.known, hyperparameters, seed)
    assert frozen.user_ids is not None
    assert frozen.user_factors is not None
    of_the_fit = dict(zip(frozen.user_ids.ids, frozen.user_factors, strict=True))
    live, again = (live_vectors(model, world, settings) for model in (frozen, retrained))
    new_items = new_item_factors(frozen, world, settings, live)
    none = NewItemFactors.none()
    lists = {
        "frozen": ranked(frozen, world, settings, of_the_fit, none),
        "users only": ranked(frozen, world, settings, live, none),
        "live": ranked(frozen, world, settings, live, new_items),
        "retrained": ranked(retrained, world, settings, again, none),
    }
    counts = metrics.held_out_counts(world.held_out)
    gains = {
        variant: metrics.ndcg(metrics.hits(rows, world.held_out), counts, K)
        for variant, rows in lists.items()
    }
    medians = {
        ("live", PLACE): float(np.median(places(frozen, world, live, new_items))),
        ("retrained", PLACE): float(np.median(places(retrained, world, again, none))),
    }
    return medians | {
        (variant, group): float(gain[members].mean())
        for variant, gain in gains.items()
        for group, members in world.groups.items()
        if members.any()
    }


def report(name: str, world: World, runs: Sequence[Mapping[tuple[str, str], float]]) -> None:
    """Print the table and record it."""
    mean = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    print(f"\n{name}: NDCG@{K}, mean of seeds {SEEDS}")
    print(
        f"{'group':16} {'users':>6} "
        + " ".join(f"{variant:>10}" for variant in VARIANTS)
        + "   live / retrained"
    )
    for group, members in world.groups.items():
        if members.any():
            values = [mean[variant, group] for variant in VARIANTS]
            ratio = f"{values[2] / values[3]:10.3f}" if values[3] else ""
            print(
                f"{group:16} {int(members.sum()):6} "
                + " ".join(f"{value:10.4f}" for value in values)
                + ratio
            )
    print(
        (
            f"{PLACE}: median place {mean['live', PLACE]:.3f} live, "
            f"{mean['retrained', PLACE]:.3f} retrained (0.5: chance)"
        ),
        flush=True,
    )
    metric = {PLACE: "median place"}
    rows = [
        quality.Row(
            name,
            f"{PROTOCOL}: {group}",
            f"als ({variant})",
            metric.get(group, f"NDCG@{K}"),
            round(value, 4),
            list(SEEDS),
            COMMAND,
        )
        for (variant, group), value in mean.items()
    ]
    quality.record(rows)
    reference = f"retrained on everything up to then, {name}, NDCG@{K}"
    row = "live-vs-retrained" if name == "ml1m" else f"live-vs-retrained-{name}"
    measurements.record(
        row, mean["live", "all"], f"NDCG@{K}", reference, mean["retrained", "all"], COMMAND
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tune", type=float, metavar="MINUTES", help="search hyperparameters of RetailRocket first"
    )
    arguments = parser.parse_args()
    folder, settings = quality.data_folder(), Settings()
    logs.configure("warning")
    for name, there in DATASETS.items():
        if folder is None or not (folder / there).is_dir():
            print(
                f"skipped: there is no folder {there} in EDDYLINE_DATA (default ../shared/data)",
                file=sys.stderr,
            )
            continue
        with tempfile.TemporaryDirectory() as temporary:
            work = Path(temporary)
            timed_events(folder, name, work / "events.parquet")
            table, skipped = events.from_file(work / "events.parquet")
            data = dataset.build(
                [table], settings.use_cases, source=f"{name}, timed rows", skipped=skipped
            )
            if arguments.tune and name == "retailrocket":
                cut = np.sort(data.timestamp)[int(len(data.timestamp) * FIRST)]
                early = table.filter(pc.less(table["timestamp"], cut))
                dataset_files.save(
                    dataset.build([early], settings.use_cases, source=f"{name}, first 80%"),
                    work / "dataset",
                )
                quality.tune(
                    work / "dataset",
                    quality.hyperparameters_file(name),
                    work / "study.sqlite",
                    quality.Search(arguments.tune),
                )
        hyperparameters = als.hyperparameters(settings, quality.hyperparameters_file(name))
        world = cut_world(data, settings)
        with threadpoolctl.threadpool_limits(1, "blas"):
            report(name, world, [compare(world, settings, hyperparameters, seed) for seed in SEEDS])


if __name__ == "__main__":
    main()
