"""Do the router's two thresholds suit this data? Asked of users as they stood after so many events, judged by what they took next.

Which users: some that the models were not fitted on at all, of whom any first n events may be a state (Marlin 2004, "strong
generalization"; Liang et al. 2018). Cutting the history of a user the models know would not do: item factors hold what was cut off. And
users who are new after a cut in time are too few, or have too few events, in most data. What the models may know is what others did
later; all of them know that alike.

Each such user, at each count of COUNTS that their history goes beyond, is answered once by each engine first, with what fills up behind it:
that is what the router would choose between. One half of the users chooses the pair of thresholds with the highest NDCG@10, the other
half says what it gains on the configured pair. Where that may be chance, the configured pair stays.
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
"""Events after which a user is asked about."""
NEXT = 10
"""New items that a user took next and that an answer is judged by: as many as it has places. Fewer where the history ends."""
ENGINES = ("content_based", "als", "ensemble")
"""Who answers below the first threshold, between the two, and from the second on (engines.router)."""
USERS, SHARE = 1000, 0.2
"""Most users left out of the fit, and most of all users: the models must not get much worse by it."""
LEAST_USERS = 40
"""With fewer the halves say nothing."""
NEVER = 1_000_000
"""A threshold that nobody reaches."""

Pair = tuple[int, int]
"""COLD_START_THRESHOLD and WARM_USER_THRESHOLD."""


@dataclass(frozen=True)
class Asked:
    """One row a user and count: `user (n,)` int64, `count (n,)` int64, `gain (n, len(ENGINES))` float64 NDCG@10 of each engine's answer."""

    user: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    gain: metrics.Floats

    def of(self, users: npt.NDArray[np.int64]) -> Asked:
        """The rows of these users alone."""
        chosen = np.isin(self.user, users)
        return Asked(self.user[chosen], self.count[chosen], self.gain[chosen])

    def routed(self, pair: Pair) -> metrics.Floats:
        """(n,) float64: NDCG@10 of the engine that the router would choose."""
        place = (self.count >= pair[0]).astype(int) + (self.count >= pair[1])
        routed: metrics.Floats = self.gain[np.arange(len(place)), place]
        return routed


@dataclass(frozen=True)
class Verdict:
    """`pair` is best for the half that chose; on the other half, of `users`, it gains `gain` (0.01: 1%) on `configured`, 95% interval."""

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
    def kept(self) -> Pair:
        """What to route by."""
        return self.pair if self.better else self.configured

    def sentence(self) -> str:
        """For people."""
        now, then = _named(self.configured), _named(self.pair)
        if self.pair == self.configured:
            return f"{now} suit this data: no other pair did better for the users who chose."
        found = f"{self.gain:+.1%} NDCG@10 [{self.low:+.1%}, {self.high:+.1%}] for {self.users} users who did not choose them"
        if not self.better:
            return f"{now} suit this data: the best other pair, {then}, is worth {found}, which may be chance."
        return (
            f"Here {then} would be better than {now}: {found}. "
            f"Set COLD_START_THRESHOLD={self.pair[0]} and WARM_USER_THRESHOLD={self.pair[1]}."
        )


def left_out(dataset: Dataset, seed: int) -> npt.NDArray[np.int32]:
    """(n,) int32: the users, in the order in which they are asked, drawn by `seed` from those with two events or more."""
    some = np.flatnonzero(np.diff(dataset.indptr) >= 2).astype(np.int32)
    drawn: npt.NDArray[np.int32] = np.random.default_rng(seed).permutation(some)[: min(USERS, int(SHARE * len(dataset.users)))]
    return drawn


def ask(recommender: Recommender, dataset: Dataset, users: npt.NDArray[np.int32], settings: Settings, deadline: float) -> Asked:
    """Ask about `users`, whom no model of `recommender` was fitted on, until `deadline` (time.monotonic).

    Raises DatasetError for fewer than LEAST_USERS, by their number or for the time; ModelError when an engine broke.
    """
    rows: list[tuple[int, int, list[float]]] = []
    asked = 0
    before = np.zeros(dataset.events, np.bool_)
    # Answers are made one by one, as when serving; BLAS threads would only wait for each other.
    with threadpoolctl.threadpool_limits(1, "blas"), progress("asking about the thresholds", len(users)) as show:
        for user in users.tolist():
            if time.monotonic() >= deadline:
                break
            start, end = dataset.indptr[user], dataset.indptr[user + 1]
            for count in COUNTS:
                before[start : min(start + count, end)] = True
                if len(wanted := _next(dataset, start + count, end, dataset.item[start : start + count])):
                    rows.append((user, count, _gains(recommender, dataset, user, before, wanted, settings)))
            before[start:end] = False
            asked += 1
            show.advance()
    if asked < LEAST_USERS:
        cause = "collect more events" if asked == len(users) else "give --minutes more"
        raise DatasetError(f"the thresholds were asked about {asked} users only, of the {LEAST_USERS} that it takes at least; {cause}")
    return Asked(np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), np.array([row[2] for row in rows]))


def judge(asked: Asked, configured: Pair, seed: int) -> Verdict:
    """Choose by one half of the users, judge by the other."""
    everyone = np.random.default_rng(seed).permutation(np.unique(asked.user))
    choosers, others = asked.of(everyone[::2]), asked.of(everyone[1::2])
    pair = best(choosers, configured)
    return Verdict(pair, configured, *gained(others, pair, configured, seed), users=len(everyone[1::2]))


def best(asked: Asked, configured: Pair) -> Pair:
    """The pair of thresholds with the highest mean NDCG@10, every row counting alike; of equal ones that nearest to `configured`."""
    limits = sorted({*COUNTS, *configured, NEVER})

    def key(pair: Pair) -> tuple[float, int]:
        away = sum(abs(limits.index(one) - limits.index(other)) for one, other in zip(pair, configured, strict=True))
        return -round(float(asked.routed(pair).mean()), 12), away

    return min(((cold, warm) for cold in limits for warm in limits if cold <= warm), key=key)


def gained(asked: Asked, pair: Pair, configured: Pair, seed: int) -> tuple[float, float, float]:
    """By what part of it `pair` raises the mean NDCG@10 of `configured`, and the 95% percentile interval over users (Efron 1979).

    Users are drawn, not rows: those of one user go together.
    """
    _, user = np.unique(asked.user, return_inverse=True)
    new, old = (np.bincount(user, asked.routed(each)) for each in (pair, configured))
    if not old.any():
        return 0.0, 0.0, 0.0
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(old), np.full(len(old), 1.0 / len(old)), size=metrics.BOOTSTRAP_ROUNDS)
    base = drawn @ old
    ratios = np.divide(drawn @ new, base, out=np.ones(len(base)), where=base > 0) - 1.0
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(new.sum() / old.sum() - 1.0), float(low), float(high)


def facts(asked: Asked, verdict: Verdict, no_ensemble: str | None = None) -> dict[str, Any]:
    """For the file of `tune`. `no_ensemble`: why there was none to ask, so that its column is that of the next engine."""
    cold, warm = verdict.kept
    return {
        "router": {"cold_start_threshold": cold, "warm_user_threshold": warm},
        "tuned": {
            "objective": "NDCG@10",
            "validation": f"the next {NEXT} new items of users left out of the fit, after their first events",
            "verdict": verdict.sentence(),
            "configured": list(verdict.configured),
            "best": list(verdict.pair),
            "gain": [round(number, 6) for number in (verdict.gain, verdict.low, verdict.high)],
            "users": len(np.unique(asked.user)),
            "no_ensemble": no_ensemble,
            "by_count": by_count(asked),
        },
    }


def by_count(asked: Asked) -> list[dict[str, Any]]:
    """One row a count: users, and NDCG@10 of each engine."""
    rows = []
    for count in COUNTS:
        chosen = asked.count == count
        if chosen.any():
            means = [round(mean, 6) for mean in asked.gain[chosen].mean(axis=0).tolist()]
            rows.append({"events": count, "users": int(chosen.sum()), **dict(zip(ENGINES, means, strict=True))})
    return rows


def report(found: dict[str, Any], console: Console) -> None:
    """NDCG@10 by engine and count, and the verdict in words."""
    tuned = found["tuned"]
    table = Table(title=f"NDCG@10 of {tuned['validation']}; {tuned['users']} users")
    for column in ("events", "users", *ENGINES):
        table.add_column(column, justify="right")
    for row in tuned["by_count"]:
        table.add_row(str(row["events"]), str(row["users"]), *(f"{row[engine]:.4f}" for engine in ENGINES))
    console.print(table)
    if tuned["no_ensemble"] is not None:
        console.print(f"There was no ensemble to ask ({tuned['no_ensemble']}): its column is the next engine's.")
    console.print(tuned["verdict"])


def _next(dataset: Dataset, start: int, end: int, had: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """(n,) int32: the first NEXT items, in order, of the events from `start` that weigh more than 0 and are not in `had`."""
    later = dataset.item[start:end][dataset.weight[start:end] > 0]
    items, first = np.unique(later, return_index=True)
    new = ~np.isin(items, had)
    taken: npt.NDArray[np.int32] = later[np.sort(first[new])][:NEXT]
    return taken


def _gains(
    recommender: Recommender, dataset: Dataset, user: int, before: Bools, wanted: npt.NDArray[np.int32], settings: Settings
) -> list[float]:
    """NDCG@10 of each engine's answer to the user as they stood after the events in `before`, by the items `wanted`."""
    state = dataset.state(user, before, settings.history_cap)
    had = frozenset(dataset.items.ids[row] for row in dataset.item[dataset.of_user(user, before)].tolist())
    answers = []
    for engine in ENGINES:
        request = Request(engine=engine, filters=Filters(available_only=False, exclude_items=had), reasons=False)
        answers.append([line.item_id for line in evaluate.ask(recommender, state, request).recommendations])
    ids = {dataset.items.ids[row] for row in wanted.tolist()}
    found = np.array([[item_id in ids for item_id in (*answer, *[""] * NEXT)[:NEXT]] for answer in answers])
    gains: list[float] = metrics.ndcg(found, np.full(len(answers), len(wanted)), NEXT).tolist()
    return gains


def _named(pair: Sequence[int]) -> str:
    return " and ".join("never" if limit == NEVER else str(limit) for limit in pair)
