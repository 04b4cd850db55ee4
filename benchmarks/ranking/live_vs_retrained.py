"""What a live model loses against a retrain: `python -m benchmarks.live_vs_retrained`, on MovieLens
1M and RetailRocket.

Four recommenders rank what users took in the last tenth of the events, by time; all of them know
what a user has by then:

    frozen      ALS fitted on the first 80%, with the user vectors of the fit: a user who came later has none
    users only  the same item factors; users folded in from all of the first 90%, as live workers do
    live        the same, and the items that came since with factors from the users who touched them
    retrained   ALS fitted on the first 90%; users folded in as serving does

Judged are users with an event in the first 90% who took something new after it; NDCG@10 over the
whole catalogue minus what the user has. New items seldom make a list of ten; what their factors are
worth shows in the place, among all items by score, of those that were taken: 0 is the first, 0.5
chance. Every list comes from engines.recommender.Recommender, the path that serves; only what the
ALS engine itself ranks counts. Hyperparameters: those that `python -m training tune` finds.
ml1m-hyperparameters.json are of another split of the same events; retailrocket-hyperparameters.json
were found within the first 80%. EDDYLINE_DATA names the folder of the data (default:
../shared/data).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp
import threadpoolctl

from benchmarks import measurements
from benchmarks.ranking import quality
from core.process import logs
from core.settings import Settings
from core.types import Filters, LiveVector, Request, UserState
from engines import fold
from engines.base import item_weights
from engines.builder import build
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
FIRST, SECOND = 0.8, 0.9
DATASETS = {"ml1m": "ml1m", "retailrocket": "retailrocket_cml"}
VARIANTS = ("frozen", "users only", "live", "retrained")
COMMAND = "python -m benchmarks.live_vs_retrained"
PLACE = "new items taken"
PROTOCOL = "fit on 80% by time, 10% live, rank the last 10%"


class World(NamedTuple):
    """`data`: all timed events; `early`, `known (n,) bool`: those of the first 80%, of the first
    90%.

    `users (m,)`: rows of the judged; `states`: what Redis holds of every user at 90%; `forgotten`:
    items that a judged user has beyond the history cap; `held_out (m, n_items)`; `came`: items of
    the live tenth that the first 80% did not have; `groups`: name -> (m,) bool.
    """

    data: dataset.Dataset
    early: dataset.Bools
    known: dataset.Bools
    users: list[int]
    states: list[UserState]
    forgotten: list[frozenset[str]]
    held_out: sp.csr_matrix
    came: list[str]
    groups: dict[str, npt.NDArray[np.bool_]]


def timed_events(folder: Path, name: str, output: Path) -> None:
    """The data set as a file of events: rows with a time; of ML-1M ratings from 4 on, each counting
    alike.
    """
    table = pq.read_table(folder / DATASETS[name] / "interactions.parquet")
    table = table.filter(pc.is_valid(table["timestamp"]))
    if name == "ml1m":
        table = table.filter(pc.greater_equal(table["value"], 4.0))
    pq.write_table(table.select(["user_id", "item_id", "event_type", "timestamp"]), output)


def world(data: dataset.Dataset, settings: Settings) -> World:
    """Cut the events at 80% and 90% of the time line, and say who is judged by what."""
    times = np.sort(data.timestamp)
    first, second = (times[int(len(times) * fraction)] for fraction in (FIRST, SECOND))
    early, known = data.timestamp < first, data.timestamp < second
    had, taken = data.touched(known), data.touched(~known & (data.weight > 0))
    new = (taken - taken.multiply(had)).tocsr()
    new.eliminate_zeros()
    everyone = np.diff(had.indptr) > 0
    users = np.flatnonzero((np.diff(new.indptr) > 0) & everyone)
    states = [data.state(user, known, settings.history_cap) for user in range(len(data.users))]
    kept = [{event.item_id for event in state.history} for state in states]
    forgotten = [
        frozenset(
            data.items.ids[item] for item in had.indices[had.indptr[user] : had.indptr[user + 1]]
        )
        - kept[user]
        for user in users
    ]
    before = data.touched(early)
    came = np.asarray(before.getnnz(axis=0) == 0) & (np.asarray(had.getnnz(axis=0)) > 0)
    held_out = new[users]
    groups = {
        "all": np.ones(len(users), dtype=np.bool_),
        "new users": np.diff(before.indptr)[users] == 0,
        "active users": np.diff(data.touched(known & ~early).indptr)[users] > 0,
        "took a new item": np.asarray(held_out[:, came].getnnz(axis=1)) > 0,
    }
    return World(
        data,
        early,
        known,
        users.tolist(),
        states,
        forgotten,
        held_out,
        [data.items.ids[item] for item in np.flatnonzero(came)],
        groups,
    )


def fitted(told: World, where: dataset.Bools, chosen: als.Hyperparameters, seed: int) -> ALSModel:
    return als.fit(told.data.interactions(where), chosen, seed)


def new_item_factors(
    model: ALSModel, told: World, settings: Settings, vectors: Mapping[str, npt.NDArray[np.float32]]
) -> NewItemFactors:
    """The items that the model does not know, from the users who touched them, as live workers keep
    them.
    """
    touched: dict[str, dict[str, float]] = {}
    for state in told.states:
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


def live_vectors(
    model: ALSModel, told: World, settings: Settings
) -> dict[str, npt.NDArray[np.float32]]:
    """User -> vector, of those with an item that the model knows."""
    made = fold.vectors(model, settings.use_cases, [state.history for state in told.states])
    return {
        state.user_id: vector
        for state, vector in zip(told.states, made, strict=True)
        if vector.any()
    }


def ranked(
    model: ALSModel,
    told: World,
    settings: Settings,
    vectors: Mapping[str, npt.NDArray[np.float32]],
    new_items: NewItemFactors,
) -> metrics.Rows:
    """(m, K) int32 rows of the items that the ALS engine shows each judged user, whose vector lies
    in Redis as current.
    """
    recommender = build(
        Bundle.of("v", als=model),
        Catalogue.of([], told.data.items.ids),
        {},
        settings,
        new_items=new_items,
    )
    found = np.full((len(told.users), K), -1, np.int32)
    for place, user in enumerate(told.users):
        state = told.states[user]
        vector = vectors.get(state.user_id)
        if vector is None:
            continue
        stored = LiveVector(
            "v", recommender.made_with, state.events, vector.astype("<f4").tobytes()
        )
        filters = Filters(available_only=False, exclude_items=told.forgotten[place])
        request = Request(limit=K, filters=filters, engine="als", reasons=False)
        answer = recommender.recommend(msgspec.structs.replace(state, als=stored), request)
        own = [line.item_id for line in answer.recommendations if line.method == "als"]
        found[place, : len(own)] = told.data.items.rows(own)
    return found


def places(
    model: ALSModel,
    told: World,
    vectors: Mapping[str, npt.NDArray[np.float32]],
    new_items: NewItemFactors,
) -> list[float]:
    """Of each item that came in the live tenth and was taken after it: the share of items that
    score higher for that user.
    """
    factors = (
        np.vstack([model.item_factors, new_items.factors]) if new_items else model.item_factors
    )
    row = {item_id: row for row, item_id in enumerate([*model.item_ids.ids, *new_items.ids.ids])}
    came = set(told.came)
    found = []
    for place, user in enumerate(told.users):
        vector = vectors.get(told.states[user].user_id)
        taken = told.held_out.indices[told.held_out.indptr[place] : told.held_out.indptr[place + 1]]
        new = [
            row[item_id]
            for item_id in (told.data.items.ids[item] for item in taken)
            if item_id in came and item_id in row
        ]
        if vector is not None and new:
            scores = factors @ vector
            found += [float((scores > scores[at]).mean()) for at in new]
    return found


def compare(
    told: World, settings: Settings, chosen: als.Hyperparameters, seed: int
) -> dict[tuple[str, str], float]:
    """(variant, group) -> NDCG@10, and (variant, PLACE)."""
    frozen, retrained = (
        fitted(told, told.early, chosen, seed),
        fitted(told, told.known, chosen, seed),
    )
    assert frozen.user_ids is not None
    assert frozen.user_factors is not None
    live = live_vectors(frozen, told, settings)
    new_items, again, none = (
        new_item_factors(frozen, told, settings, live),
        live_vectors(retrained, told, settings),
        NewItemFactors.none(),
    )
    lists = {
        "frozen": ranked(
            frozen,
            told,
            settings,
            dict(zip(frozen.user_ids.ids, frozen.user_factors, strict=True)),
            none,
        ),
        "users only": ranked(frozen, told, settings, live, none),
        "live": ranked(frozen, told, settings, live, new_items),
        "retrained": ranked(retrained, told, settings, again, none),
    }
    counts = metrics.held_out_counts(told.held_out)
    gains = {
        variant: metrics.ndcg(metrics.hits(rows, told.held_out), counts, K)
        for variant, rows in lists.items()
    }
    medians = {
        ("live", PLACE): float(np.median(places(frozen, told, live, new_items))),
        ("retrained", PLACE): float(np.median(places(retrained, told, again, none))),
    }
    return medians | {
        (variant, group): float(gain[chosen_users].mean())
        for variant, gain in gains.items()
        for group, chosen_users in told.groups.items()
        if chosen_users.any()
    }


def report(name: str, told: World, runs: Sequence[Mapping[tuple[str, str], float]]) -> None:
    """Print the table and record it."""
    mean = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    print(f"\n{name}: NDCG@{K}, mean of seeds {SEEDS}")
    print(
        f"{'group':16} {'users':>6} "
        + " ".join(f"{variant:>10}" for variant in VARIANTS)
        + "   live / retrained"
    )
    for group, chosen in told.groups.items():
        if chosen.any():
            values = [mean[variant, group] for variant in VARIANTS]
            ratio = f"{values[2] / values[3]:10.3f}" if values[3] else ""
            print(
                f"{group:16} {int(chosen.sum()):6} "
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
                table, settings.use_cases, source=f"{name}, timed rows", skipped=skipped
            )
            if arguments.tune and name == "retailrocket":
                cut = np.sort(data.timestamp)[int(len(data.timestamp) * FIRST)]
                early = table.filter(pc.less(table["timestamp"], cut))
                dataset_files.save(
                    dataset.build(early, settings.use_cases, source=f"{name}, first 80%"),
                    work / "dataset",
                )
                quality.tune(
                    work / "dataset", arguments.tune, quality.found(name), work / "study.sqlite"
                )
        chosen = als.hyperparameters(settings, quality.found(name))
        told = world(data, settings)
        with threadpoolctl.threadpool_limits(1, "blas"):
            report(name, told, [compare(told, settings, chosen, seed) for seed in SEEDS])


if __name__ == "__main__":
    main()
