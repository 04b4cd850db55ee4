"""Measures NDCG@10 of each engine by the number of events of a user, for the router's thresholds.

The users are some on whom the models were not fitted at all, so that any first n of their events
can be a state (Marlin 2004, "strong generalization"; Liang et al. 2018). Cutting the history of a
user of the training set would not do, because the item factors contain the events that were cut.
Users who are new after a cut in time are too few, or have too few events, in most data. The models
may contain what other users did later; that is the same for every engine.

For each such user, and for each count of COUNTS below the length of their history, each engine
answers first, with its fallbacks behind it: these are the answers that the router chooses between.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import threadpoolctl

from core.errors import DatasetError
from core.settings import Settings
from core.types import Filters, Request
from engines.recommender import Recommender
from models.router.thresholds import Pair
from training.data.dataset import Bools, Dataset
from training.evaluation import metrics
from training.evaluation.answers import ask
from training.progress import progress

COUNTS = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50)
"""Numbers of events after which a user is evaluated."""
NEXT_ITEMS = 10
"""Most of the user's next new items that an answer is judged by: as many as it has places."""
ENGINES = ("content_based", "als", "ensemble")
"""The engines below the first threshold, between the two, and from the second on (engines.router).
"""
USERS, SHARE = 1000, 0.2
"""Most users left out of the fit, as a number and as a share of all: the models must not get much
worse by it.
"""
LEAST_USERS = 40
"""Least users: with fewer, half of them cannot choose."""


@dataclass(frozen=True)
class Measurements:
    """NDCG@10 of each engine, one row a user and count.

    `user (n,)` int64, `count (n,)` int64, `gain (n, len(ENGINES))` float64.
    """

    user: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    gain: metrics.Floats

    def of(self, users: npt.NDArray[np.int64]) -> Measurements:
        """The rows of `users` alone."""
        rows = np.isin(self.user, users)
        return Measurements(self.user[rows], self.count[rows], self.gain[rows])

    def picked(self, pair: Pair) -> npt.NDArray[np.int64]:
        """(n,) int64: column of the engine that the thresholds `pair` pick."""
        return (self.count >= pair[0]).astype(np.int64) + (self.count >= pair[1])

    def routed(self, pair: Pair) -> metrics.Floats:
        """(n,) float64: NDCG@10 of the engine that the thresholds `pair` pick."""
        column = self.picked(pair)
        routed: metrics.Floats = self.gain[np.arange(len(column)), column]
        return routed


def draw_users(dataset: Dataset, seed: int) -> npt.NDArray[np.int32]:
    """(n,) int32: users to leave out of the fit, in the order of evaluation.

    `seed` draws them from the users with two events or more.
    """
    eligible = np.flatnonzero(np.diff(dataset.indptr) >= 2).astype(np.int32)
    users: npt.NDArray[np.int32] = np.random.default_rng(seed).permutation(eligible)[
        : min(USERS, int(SHARE * len(dataset.users)))
    ]
    return users


def measure(
    recommender: Recommender,
    dataset: Dataset,
    users: npt.NDArray[np.int32],
    settings: Settings,
    deadline: float,
) -> Measurements:
    """Evaluate every engine for `users (n,)` until `deadline` (time.monotonic).

    No model of `recommender` was fitted on these users.

    Raises DatasetError when fewer than LEAST_USERS were evaluated, because there are too few or the
    time is over; the caller keeps the thresholds. Raises ModelError when an engine fails.
    """
    rows: list[tuple[int, int, list[float]]] = []
    evaluated = 0
    before = np.zeros(dataset.events, np.bool_)
    # Answers are made one by one, as when serving; BLAS threads would only wait for each other.
    with (
        threadpoolctl.threadpool_limits(1, "blas"),
        progress("evaluating the thresholds", len(users)) as show,
    ):
        for user in users.tolist():
            if time.monotonic() >= deadline:
                break
            start, end = dataset.indptr[user], dataset.indptr[user + 1]
            for count in COUNTS:
                before[start : min(start + count, end)] = True
                if len(
                    relevant := next_items(
                        dataset, start + count, end, dataset.item[start : start + count]
                    )
                ):
                    rows.append(
                        (
                            user,
                            count,
                            _gains(recommender, dataset, user, before, relevant, settings),
                        )
                    )
            before[start:end] = False
            evaluated += 1
            show.advance()
    if evaluated < LEAST_USERS:
        advice = "collect more events" if evaluated == len(users) else "give --minutes more"
        raise DatasetError(
            f"the thresholds were evaluated for {evaluated} users only, at least "
            f"{LEAST_USERS} are needed; {advice}"
        )
    return Measurements(
        np.array([row[0] for row in rows]),
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
    )


def next_items(
    dataset: Dataset, start: int, end: int, history: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """(n,) int32: the first NEXT_ITEMS items, in order, that `history` lacks.

    Only events from `start` with weight above 0 count.
    """
    later = dataset.item[start:end][dataset.weight[start:end] > 0]
    items, first = np.unique(later, return_index=True)
    new = ~np.isin(items, history)
    next_items: npt.NDArray[np.int32] = later[np.sort(first[new])][:NEXT_ITEMS]
    return next_items


def _gains(
    recommender: Recommender,
    dataset: Dataset,
    user: int,
    before: Bools,
    relevant: npt.NDArray[np.int32],
    settings: Settings,
) -> list[float]:
    """NDCG@10 of each engine's answer to the user after the events in `before`.

    The items `relevant` are the right answers.
    """
    state = dataset.state(user, before, settings.history_cap)
    history = frozenset(
        dataset.items.ids[row] for row in dataset.item[dataset.of_user(user, before)].tolist()
    )
    answers = []
    for engine in ENGINES:
        request = Request(
            engine=engine,
            filters=Filters(available_only=False, exclude_items=history),
            reasons=False,
        )
        answers.append([line.item_id for line in ask(recommender, state, request).recommendations])
    relevant_ids = {dataset.items.ids[row] for row in relevant.tolist()}
    padding = [""] * NEXT_ITEMS
    hits = np.array(
        [
            [item_id in relevant_ids for item_id in (*answer, *padding)[:NEXT_ITEMS]]
            for answer in answers
        ]
    )
    gains: list[float] = metrics.ndcg(
        hits, np.full(len(answers), len(relevant)), NEXT_ITEMS
    ).tolist()
    return gains
