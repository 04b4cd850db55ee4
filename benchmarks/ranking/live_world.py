"""Cuts the events of `python -m benchmarks.live_vs_retrained` by time, and lists who is judged."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from core.settings import Settings
from core.types import UserState
from training.data import dataset

FIRST, SECOND = 0.8, 0.9
DATASETS = {"ml1m": "ml1m", "retailrocket": "retailrocket_cml"}


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


def cut_world(data: dataset.Dataset, settings: Settings) -> World:
    """Cut the events at 80% and 90% of the time line, and say who is judged by what."""
    times = np.sort(data.timestamp)
    first, second = (times[int(len(times) * fraction)] for fraction in (FIRST, SECOND))
    early, known = data.timestamp < first, data.timestamp < second
    had, later = data.touched(known), data.touched(~known & (data.weight > 0))
    new = (later - later.multiply(had)).tocsr()
    new.eliminate_zeros()
    everyone = np.diff(had.indptr) > 0
    users = np.flatnonzero((np.diff(new.indptr) > 0) & everyone)
    states = [data.state(user, known, settings.history_cap) for user in range(len(data.users))]
    in_history = [{event.item_id for event in state.history} for state in states]
    forgotten = [
        frozenset(
            data.items.ids[item] for item in had.indices[had.indptr[user] : had.indptr[user + 1]]
        )
        - in_history[user]
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
