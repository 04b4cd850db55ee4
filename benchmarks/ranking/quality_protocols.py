"""The data sets of ranking quality, each by its published protocol.

A protocol says what is trained on, and who is judged by what.

- ml1m (He et al. 2017, "NCF leave-one-out"): each user's latest rating is held out, and ranked
  among 99 fixed negatives, and among the whole catalogue minus what the user has. Every other
  rating is an interaction of weight 1.
- sports (Zhou et al. 2020, "S3-Rec", Amazon Sports and Outdoors): each user's last item is held
  out, and ranked among the whole catalogue.
- gowalla (He et al. 2020, "LightGCN", its published split): a fifth of each user's items is held
  out; their order is unknown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.settings import Settings
from core.types import Item
from models.content import ContentModel
from training.data import dataset, events, items
from training.data.dataset import Dataset

SAMPLED = "leave-one-out, 99 negatives"
FULL = "leave-one-out, whole catalogue"
LAST_ITEM = "last item, whole catalogue"
PUBLISHED_SPLIT = "published split, whole catalogue"
FOLDERS = {"ml1m": "ml1m", "sports": "s3rec_sports_and_outdoors", "gowalla": "gowalla_lightgcn"}
Floats = npt.NDArray[np.floating]
Gains = dict[tuple[str, str], float]
"""(protocol, metric) -> its value for one user, or the mean of many."""


@dataclass(frozen=True)
class Judged:
    """A user who is judged: rows of the data's users and items, -1 for an item without training
    rows, which counts as ranked last.

    `held_out (n,)`; `negatives (n,)`: those that the first held-out item is also ranked among, if
    the protocol names some.
    """

    user: int
    held_out: npt.NDArray[np.int32]
    negatives: npt.NDArray[np.int32] | None = None


@dataclass(frozen=True)
class Protocol:
    """`data`: the training rows; `entries`: the catalogue; `name`: of what is ranked among the
    whole catalogue; `k`: places that count; `share`: what the share of held-out items among these
    is called.
    """

    data: Dataset
    entries: list[Item]
    judged: list[Judged]
    name: str
    k: int = 10
    share: str = "HR"

    @cached_property
    def content(self) -> ContentModel:
        """Of the catalogue."""
        return ContentModel.fit(self.entries)

    def gains(self, judged: Judged, seen: npt.NDArray[np.int32], scores: Floats) -> Gains:
        """`scores (n_items,)` of the data's items, and the rows `seen` of what the user has.

        Ties count against what is held out.
        """
        gains: Gains = {}
        if judged.negatives is not None:
            first = int(judged.held_out[0])
            better = (
                self.k
                if first < 0
                else int(
                    np.count_nonzero(
                        scores[judged.negatives[judged.negatives >= 0]] >= scores[first]
                    )
                )
            )
            gains |= {
                (SAMPLED, f"HR@{self.k}"): float(better < self.k),
                (SAMPLED, f"NDCG@{self.k}"): _discount(better, self.k),
            }
        mine, had = scores[judged.held_out[judged.held_out >= 0]], scores[seen]
        places = [
            int(np.count_nonzero(scores >= own) - np.count_nonzero(had >= own)) - 1
            for own in mine[mine > -np.inf].tolist()
        ]
        ideal = sum(_discount(place, self.k) for place in range(len(judged.held_out)))
        gains[self.name, f"{self.share}@{self.k}"] = sum(place < self.k for place in places) / len(
            judged.held_out
        )
        gains[self.name, f"NDCG@{self.k}"] = (
            sum(_discount(place, self.k) for place in places) / ideal
        )
        return gains


def _discount(better: int, k: int) -> float:
    return 1.0 / float(np.log2(better + 2.0)) if better < k else 0.0


def ml1m(folder: Path) -> Protocol:
    """MovieLens 1M; the rating's value is left out: every rating counts alike."""
    rows = pq.read_table(
        folder / "interactions.parquet",
        columns=["user_id", "item_id", "event_type", "timestamp", "ncf_test"],
    )
    data = _built(
        rows.filter(pc.invert(rows["ncf_test"])).drop_columns(["ncf_test"]),
        "ml1m without ncf_test rows",
    )
    table = pq.read_table(folder / "ncf_leave_one_out_test.parquet")
    users, held_out = _rows(data, table)
    judged = [
        Judged(user, held_out[place : place + 1], data.items.rows(map(str, negatives)))
        for place, (user, negatives) in enumerate(
            zip(users, table["negatives"].to_pylist(), strict=True)
        )
    ]
    return Protocol(data, items.read(folder / "items.parquet"), judged, FULL)


def sports(folder: Path) -> Protocol:
    """Amazon Sports and Outdoors; the file has the order of a user's rows, and no times."""
    train, test = _split(folder, "view")
    data = _built(train, "sports without test rows")
    users, held_out = _rows(data, test)
    judged = [Judged(user, held_out[place : place + 1]) for place, user in enumerate(users)]
    return Protocol(data, items.read(folder / "items.parquet"), judged, LAST_ITEM)


def gowalla(folder: Path) -> Protocol:
    """Gowalla.

    The order of the rows means nothing, so they are shuffled: else a user's last row would be no
    fair sample of the rest.
    """
    train, test = _split(folder, "view")
    data = _built(
        train.take(np.random.default_rng(0).permutation(train.num_rows)),
        "gowalla, the published split's training rows",
    )
    users, held_out = _rows(data, test)
    order = np.argsort(users, kind="stable")
    distinct, starts = np.unique(users[order], return_index=True)
    parts = np.split(held_out[order], starts[1:])
    judged = [Judged(user, part) for user, part in zip(distinct.tolist(), parts, strict=True)]
    return Protocol(data, [], judged, PUBLISHED_SPLIT, k=20, share="Recall")


LOADERS: dict[str, Callable[[Path], Protocol]] = {
    "ml1m": ml1m,
    "sports": sports,
    "gowalla": gowalla,
}


def _split(folder: Path, event_type: str) -> tuple[pa.Table, pa.Table]:
    """Training rows, as events of one type without a value, and test rows."""
    rows = pq.read_table(folder / "interactions.parquet").drop_columns(["value"])
    rows = rows.set_column(
        rows.column_names.index("event_type"), "event_type", pa.array([event_type] * rows.num_rows)
    )
    test = pc.equal(rows["split"], "test")
    return rows.filter(pc.invert(test)), rows.filter(test)


def _built(rows: pa.Table, source: str) -> Dataset:
    with tempfile.TemporaryDirectory() as temporary:
        pq.write_table(rows, Path(temporary) / "events.parquet")
        table, skipped = events.from_file(Path(temporary) / "events.parquet")
    return dataset.build([table], Settings().use_cases, source=source, skipped=skipped)


def _rows(data: Dataset, table: pa.Table) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    users = data.users.rows(table["user_id"].cast(pa.string()).to_pylist())
    return users, data.items.rows(table["item_id"].cast(pa.string()).to_pylist())
