"""Judges whether the router's two thresholds suit the data.

Users: some on whom the models were not fitted at all, so that any first n of their events can be a
state (Marlin 2004, "strong generalization"; Liang et al. 2018). Cutting the history of a user of
the training set would not do, because the item factors contain the events that were cut. Users who
are new after a cut in time are too few, or have too few events, in most data. The models may
contain what other users did later; that is the same for every engine.

For each such user, and for each count of COUNTS below the length of their history, each engine
answers first, with its fallbacks behind it: these are the answers that the router chooses between.
One half of the users chooses the pair of thresholds with the highest NDCG@10; the other half
measures its gain over the configured pair. When the gain may be chance, the configured pair stays.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl
from rich.console import Console
from rich.table import Table

from core.errors import DatasetError
from core.settings import Settings
from core.types import Filters, Request
from engines.recommender import Recommender
from training.data.dataset import Bools, Dataset
from training.evaluation import evaluate, metrics
from training.progress import progress

COUNTS = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50)
"""Numbers of events after which a user is evaluated."""
NEXT_ITEMS = 10
"""The user's next new items that an answer is judged by: as many as it has places.

Fewer where the history ends.
"""
ENGINES = ("content_based", "als", "ensemble")
"""The engines below the first threshold, between the two, and from the second on (engines.router).
"""
USERS, SHARE = 1000, 0.2
"""Most users left out of the fit, as a number and as a share of all: the models must not get much
worse by it.
"""
LEAST_USERS = 40
"""With fewer users a half of them decides nothing."""
NEVER = 1_000_000
"""A threshold that no user reaches."""

Pair = tuple[int, int]
"""COLD_START_THRESHOLD and WARM_USER_THRESHOLD."""


@dataclass(frozen=True)
class Measurements:
    """One row a user and count: `user (n,)` int64, `count (n,)` int64, `gain (n, len(ENGINES))`
    float64 NDCG@10 of each engine.
    """

    user: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    gain: metrics.Floats

    def of(self, users: npt.NDArray[np.int64]) -> Measurements:
        """The rows of `users` alone."""
        rows = np.isin(self.user, users)
        return Measurements(self.user[rows], self.count[rows], self.gain[rows])

    def routed(self, pair: Pair) -> metrics.Floats:
        """(n,) float64: NDCG@10 of the engine that the router chooses with the thresholds
        `pair`.
        """
        column = (self.count >= pair[0]).astype(int) + (self.count >= pair[1])
        routed: metrics.Floats = self.gain[np.arange(len(column)), column]
        return routed


@dataclass(frozen=True)
class Verdict:
    """The result: `pair` is best for the half that chose.

    On the other half, of `users`, it gains `gain` (0.01: 1%) over `configured`, with the 95%
    interval `low` to `high`.
    """

    pair: Pair
    configured: Pair
    gain: float
    low: float
    high: float
    users: int

    @property
    def better(self) -> bool:
        """Whether the gain is more than chance."""
        return self.low > 0

    @property
    def recommended(self) -> Pair:
        """The pair to route by."""
        return self.pair if self.better else self.configured

    def sentence(self) -> str:
        """The verdict in words."""
        configured, best = _named(self.configured), _named(self.pair)
        if self.pair == self.configured:
            return f"{configured} suit this data: no other pair did better for the users who chose."
        gain = (
            f"{self.gain:+.1%} NDCG@10 [{self.low:+.1%}, {self.high:+.1%}] for {self.users} "
            f"users who did not choose them"
        )
        if not self.better:
            return (
                f"{configured} suit this data: the best other pair, {best}, is worth {gain}, "
                f"which may be chance."
            )
        return (
            f"Here {best} would be better than {configured}: {gain}. "
            f"Set COLD_START_THRESHOLD={self.pair[0]} and WARM_USER_THRESHOLD={self.pair[1]}."
        )


def draw_users(dataset: Dataset, seed: int) -> npt.NDArray[np.int32]:
    """(n,) int32: users to leave out of the fit, in the order of evaluation, drawn by `seed` from
    those with two events or more.
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
    """Evaluate every engine for `users (n,)`, on whom no model of `recommender` was fitted, until
    `deadline` (time.monotonic).

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
                    relevant := _next_items(
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


def judge(measurements: Measurements, configured: Pair, seed: int) -> Verdict:
    """Choose the best pair by one half of the users, and measure its gain on the other half."""
    users = np.random.default_rng(seed).permutation(np.unique(measurements.user))
    choosing, testing = users[::2], users[1::2]
    pair = best(measurements.of(choosing), configured)
    return Verdict(
        pair,
        configured,
        *relative_gain(measurements.of(testing), pair, configured, seed),
        users=len(testing),
    )


def best(measurements: Measurements, configured: Pair) -> Pair:
    """The pair of thresholds with the highest mean NDCG@10 over all rows; of equal ones the nearest
    to `configured`.
    """
    limits = sorted({*COUNTS, *configured, NEVER})

    def key(pair: Pair) -> tuple[float, int]:
        distance = sum(
            abs(limits.index(one) - limits.index(other))
            for one, other in zip(pair, configured, strict=True)
        )
        return -round(float(measurements.routed(pair).mean()), 12), distance

    return min(((cold, warm) for cold in limits for warm in limits if cold <= warm), key=key)


def relative_gain(
    measurements: Measurements, pair: Pair, configured: Pair, seed: int
) -> tuple[float, float, float]:
    """How much `pair` raises the mean NDCG@10 of `configured`, as a share of it, and its 95%
    percentile interval (Efron 1979).

    The bootstrap draws users, not rows: the rows of one user are not independent.
    """
    _, user = np.unique(measurements.user, return_inverse=True)
    new, old = (
        np.bincount(user, measurements.routed(thresholds)) for thresholds in (pair, configured)
    )
    if not old.any():
        return 0.0, 0.0, 0.0
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(
        len(old), np.full(len(old), 1.0 / len(old)), size=metrics.BOOTSTRAP_ROUNDS
    )
    base = draws @ old
    ratios = np.divide(draws @ new, base, out=np.ones(len(base)), where=base > 0) - 1.0
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(new.sum() / old.sum() - 1.0), float(low), float(high)


def facts(
    measurements: Measurements, verdict: Verdict, no_ensemble: str | None = None
) -> dict[str, Any]:
    """The sections for the file of `tune`.

    `no_ensemble`: why the ensemble is off; its column is then that of the next engine.
    """
    cold, warm = verdict.recommended
    return {
        "router": {"cold_start_threshold": cold, "warm_user_threshold": warm},
        "tuned": {
            "objective": "NDCG@10",
            "validation": (
                f"the next {NEXT_ITEMS} new items of users left out of the fit, after their "
                f"first events"
            ),
            "verdict": verdict.sentence(),
            "configured": list(verdict.configured),
            "best": list(verdict.pair),
            "gain": [round(number, 6) for number in (verdict.gain, verdict.low, verdict.high)],
            "users": len(np.unique(measurements.user)),
            "no_ensemble": no_ensemble,
            "by_count": by_count(measurements),
        },
    }


def by_count(measurements: Measurements) -> list[dict[str, Any]]:
    """One row a count: users, and mean NDCG@10 of each engine."""
    rows = []
    for count in COUNTS:
        selected = measurements.count == count
        if selected.any():
            means = [round(mean, 6) for mean in measurements.gain[selected].mean(axis=0).tolist()]
            rows.append(
                {
                    "events": count,
                    "users": int(selected.sum()),
                    **dict(zip(ENGINES, means, strict=True)),
                }
            )
    return rows


def report(sections: dict[str, Any], console: Console) -> None:
    """Print NDCG@10 by engine and count, and the verdict. `sections`: of `facts`."""
    tuned = sections["tuned"]
    table = Table(title=f"NDCG@10 of {tuned['validation']}; {tuned['users']} users")
    for column in ("events", "users", *ENGINES):
        table.add_column(column, justify="right")
    for row in tuned["by_count"]:
        table.add_row(
            str(row["events"]), str(row["users"]), *(f"{row[engine]:.4f}" for engine in ENGINES)
        )
    console.print(table)
    if tuned["no_ensemble"] is not None:
        console.print(
            f"The ensemble is not available ({tuned['no_ensemble']}): its column is the "
            f"next engine's."
        )
    console.print(tuned["verdict"])


def _next_items(
    dataset: Dataset, start: int, end: int, history: npt.NDArray[np.int32]
) -> npt.NDArray[np.int32]:
    """(n,) int32: the first NEXT_ITEMS items, in order, of the events from `start` with weight
    above 0 that `history` lacks.
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
    """NDCG@10 of each engine's answer to the user after the events in `before`, judged by the items
    `relevant`.
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
        answers.append(
            [line.item_id for line in evaluate.ask(recommender, state, request).recommendations]
        )
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


def _named(pair: Sequence[int]) -> str:
    return " and ".join("never" if limit == NEVER else str(limit) for limit in pair)
