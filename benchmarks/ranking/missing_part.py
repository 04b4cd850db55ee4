"""Compares scores for an item that one part of a blend does not know.

docs/adr/0009-ensemble-scale.md has the decision.

python -m benchmarks.missing_part --dataset sports
python -m benchmarks.missing_part --dataset ml1m

A tenth of the items, drawn by a hash of their ids, is left out of ALS, as if they had come after
training; content knows them. Each user's last item is ranked among the whole catalogue minus what
the user has, by blends of ALS and content that differ in the score of such an item. The data is not
part of the project: EDDYLINE_DATA names its folder (default: ../shared/data).
"""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp

from benchmarks.ranking.quality import data_folder
from core.settings import Settings
from core.types import BlendMethod, HistoryEvent, Item, Request, UserState
from engines.als import ALSEngine
from engines.base import NO_OPINION, NotApplicable, Scores
from engines.blending.scales import SCALES, blend_scores
from engines.catalogue import Catalogue
from engines.content.engine import ContentEngine
from models.content import ContentModel
from models.id_map import IdMap
from training import als
from training.data.dataset import Interactions

K = 10
USERS = 4000
WEIGHTS = (0.8, 0.6, 0.4)
FITS = {
    "sports": als.Hyperparameters(factors=64, regularization=10, alpha=10, iterations=10),
    "ml1m": als.Hyperparameters(factors=64, regularization=30, alpha=2, iterations=10),
}


class Data(NamedTuple):
    """`train`: user -> items, oldest first; `last`: user -> the item held out."""

    items: list[Item]
    train: dict[str, list[str]]
    last: dict[str, str]


def sports(folder: Path) -> Data:
    rows = (
        pq.read_table(folder / "interactions.parquet")
        .sort_by([("user_id", "ascending"), ("seq_pos", "ascending")])
        .to_pylist()
    )
    entries = pq.read_table(folder / "items.parquet").to_pylist()
    items = [
        Item(
            item_id=str(entry["item_id"]), item_type="product", categories=entry["categories"] or []
        )
        for entry in entries
    ]
    train: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        train[str(row["user_id"])].append(str(row["item_id"]))
    return Data(items, train, {user: of_user.pop() for user, of_user in train.items()})


def ml1m(folder: Path) -> Data:
    rows = sorted(
        pq.read_table(folder / "interactions.parquet").to_pylist(),
        key=lambda row: (row["timestamp"] or 0, row["file_order"]),
    )
    items = [
        Item(
            item_id=str(entry["item_id"]),
            item_type="film",
            title=entry["title"],
            categories=entry["categories"] or [],
            tags=[
                name.strip()
                for name in f"{entry['director'] or ''},{entry['actors'] or ''}".split(",")
                if name.strip()
            ],
            text=entry["plot"],
        )
        for entry in pq.read_table(folder / "items.parquet").to_pylist()
    ]
    train: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if not row["ncf_test"]:
            train[str(row["user_id"])].append(str(row["item_id"]))
    return Data(
        items, train, {str(row["user_id"]): str(row["item_id"]) for row in rows if row["ncf_test"]}
    )


def treatments(scaled: Scores, known: Any, weight: float) -> Iterator[tuple[str, Scores]]:
    """The blend of ALS by `weight` and content, under each treatment.

    `scaled (2, n)` has 0 where `known (2, n)` is false.
    """
    weights = np.array([weight, 1 - weight], dtype=np.float32)
    yield "the part's lowest (0)", weights @ scaled
    means = (scaled.sum(axis=1) / known.sum(axis=1))[:, None]
    yield "the part's mean", weights @ np.where(known, scaled, means)
    yield (
        "nothing: the others' weights count for it",
        (weights @ scaled) / np.maximum(weights @ known, np.float32(1e-9)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=FITS, required=True)
    arguments = parser.parse_args()
    folder, name = (
        data_folder(),
        {"sports": "s3rec_sports_and_outdoors", "ml1m": "ml1m"}[arguments.dataset],
    )
    if folder is None or not (folder / name).is_dir():
        print(
            f"skipped: there is no folder {name} in EDDYLINE_DATA (default ../shared/data)",
            file=sys.stderr,
        )
        return
    data = {"sports": sports, "ml1m": ml1m}[arguments.dataset](folder / name)
    new = {item.item_id for item in data.items if zlib.crc32(item.item_id.encode()) % 10 == 0}
    pairs = [(user, item) for user, of_user in data.train.items() for item in set(of_user) - new]
    users, ids = IdMap(list(data.train)), IdMap(sorted({item for _, item in pairs}))
    places = users.rows(user for user, _ in pairs), ids.rows(item for _, item in pairs)
    matrix = sp.csr_matrix((np.ones(len(pairs), np.float32), places), shape=(len(users), len(ids)))
    catalogue, use_cases = Catalogue.of(data.items, ids.ids), Settings().use_cases
    parts = (
        ALSEngine(
            als.fit(Interactions(matrix, users, ids), FITS[arguments.dataset], 1, threads=1),
            catalogue,
            use_cases,
        ),
        ContentEngine(ContentModel.fit(data.items), catalogue, use_cases),
    )
    drawn = np.random.default_rng(0).permutation(sorted(data.last))[:USERS].tolist()
    gains: dict[tuple[str, str], list[tuple[bool, float]]] = defaultdict(list)
    for user in drawn:
        history_items, answer = data.train.get(user, [])[-500:], data.last[user]
        state = UserState(
            user_id=user,
            events=len(history_items),
            history=[HistoryEvent(at, "like", item) for at, item in enumerate(history_items)],
        )
        try:
            scores = [part.score(state, Request()).scores for part in parts]
        except NotApplicable:
            continue
        seen, row = catalogue.rows_of(history_items), catalogue.rows.get(answer)
        scores_of = {("als alone", ""): scores[0], ("content alone", ""): scores[1]}
        known = np.array([score > NO_OPINION for score in scores])
        methods: list[BlendMethod] = list(SCALES)
        for method in methods:
            _, scaled = blend_scores(method, scores, [0.5, 0.5], np.zeros(0, np.intp))
            for weight in WEIGHTS:
                for treatment, blended in treatments(scaled, known, weight):
                    scores_of[f"{method}, {weight:.1f} / {1 - weight:.1f}", treatment] = blended
        for what, blended in scores_of.items():
            mine = blended.copy()
            mine[seen] = NO_OPINION
            place = (
                np.count_nonzero(mine > mine[row])
                if row is not None and mine[row] > NO_OPINION
                else K
            )
            gains[what].append((answer in new, 1 / np.log2(place + 2) if place < K else 0.0))
    print(
        f"{'NDCG@10 of the last item':66s}    all  known    new   "
        f"({len(next(iter(gains.values())))} users)"
    )
    for (blend, treatment), values in gains.items():
        is_new, gain = (np.array(column) for column in zip(*values, strict=True))
        print(
            f"{blend:22s} {treatment:43s} {gain.mean():6.4f} {gain[~is_new].mean():6.4f} "
            f"{gain[is_new].mean():6.4f}"
        )


if __name__ == "__main__":
    main()
