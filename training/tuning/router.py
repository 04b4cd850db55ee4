"""Judges whether the router's two thresholds suit the data.

`router_measurements` measures each engine for users on whom the models were not fitted. One half of
these users chooses the pair of thresholds with the highest NDCG@10; the other half measures its
gain over the configured pair. When the gain may be chance, the configured pair stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from core.process.tables import Column, Table
from training.evaluation import metrics
from training.tuning.router_measurements import COUNTS, ENGINES, NEXT_ITEMS, Measurements, Pair

NEVER = 1_000_000
"""A threshold that no user reaches."""


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
    """The pair of thresholds with the highest mean NDCG@10 over all rows.

    Of equal pairs it is the nearest to `configured`.
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
    """The gain of `pair` over `configured`, as a share of the mean NDCG@10 of `configured`.

    Returns the gain and its 95% percentile interval (Efron 1979).

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
    table = Table(
        *(Column(name, number=True) for name in ("events", "users", *ENGINES)),
        title=f"NDCG@10 of {tuned['validation']}; {tuned['users']} users",
    )
    for row in tuned["by_count"]:
        table.add(row["events"], row["users"], *(f"{row[engine]:.4f}" for engine in ENGINES))
    table.show(console)
    if tuned["no_ensemble"] is not None:
        console.print(
            f"The ensemble is not available ({tuned['no_ensemble']}): its column is the "
            f"next engine's."
        )
    console.print(tuned["verdict"])


def _named(pair: Sequence[int]) -> str:
    return " and ".join("never" if limit == NEVER else str(limit) for limit in pair)
