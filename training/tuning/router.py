"""Judges whether the router's two thresholds suit the data.

`router_measurements` measures each engine for users on whom the models were not fitted. The pair of
thresholds with the highest NDCG@10 is cross-validated: a fifth of the users measures the pair that
the others choose, beside the configured pair. When the gain may be chance, the configured pair
stays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from core.process.tables import Column, Table
from models.router.thresholds import NEVER, Pair, PreferredThresholds, named
from training.evaluation import metrics
from training.tuning.router_measurements import COUNTS, ENGINES, NEXT_ITEMS, Measurements

FOLDS = 5


def judge(measurements: Measurements, configured: Pair, seed: int) -> PreferredThresholds:
    """The best pair of thresholds, and the gain of such a choice over the `configured` pair."""
    pair = best(measurements, configured)
    gain = low = high = 0.0
    if pair != configured:
        gain, low, high = relative_gain(
            measurements.user,
            cross_validated(measurements, configured, seed),
            measurements.routed(configured),
            seed,
        )
    return PreferredThresholds(
        preferred=pair,
        configured=configured,
        gain=gain,
        low=low,
        high=high,
        users=len(np.unique(measurements.user)),
    )


def cross_validated(measurements: Measurements, configured: Pair, seed: int) -> metrics.Floats:
    """(n,) float64: NDCG@10 of each row by the pair that the users of the other folds choose."""
    users = np.random.default_rng(seed).permutation(np.unique(measurements.user))
    values = np.zeros(len(measurements.user))
    for fold in range(FOLDS):
        held_out = np.isin(measurements.user, users[fold::FOLDS])
        choosing = measurements.of(np.delete(users, np.s_[fold::FOLDS]))
        values[held_out] = measurements.routed(best(choosing, configured))[held_out]
    return values


def sentence(thresholds: PreferredThresholds) -> str:
    """The verdict in words."""
    configured, preferred = named(thresholds.configured), named(thresholds.preferred)
    if thresholds.preferred == thresholds.configured:
        return f"{configured} suit this data: no other pair did better for the users who chose."
    gain = f"{thresholds.measured}, by thresholds that others chose"
    if not thresholds.better:
        return (
            f"{configured} suit this data: the best other pair, {preferred}, is worth {gain}, "
            f"which may be chance."
        )
    cold, warm = thresholds.preferred
    return (
        f"Here {preferred} would be better than {configured}: {gain}. "
        f"Set COLD_START_THRESHOLD={cold} and WARM_USER_THRESHOLD={warm}."
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
    users: npt.NDArray[np.int64], new: metrics.Floats, old: metrics.Floats, seed: int
) -> tuple[float, float, float]:
    """The gain of `new (n,)` over `old (n,)` as a share of the mean of `old`.

    `users (n,)`: whose row it is. Returns the gain and its 95% percentile interval (Efron 1979).

    The bootstrap draws users, not rows: the rows of one user are not independent.
    """
    _, user = np.unique(users, return_inverse=True)
    gains, base_gains = np.bincount(user, new), np.bincount(user, old)
    if not base_gains.any():
        return 0.0, 0.0, 0.0
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(
        len(gains), np.full(len(gains), 1.0 / len(gains)), size=metrics.BOOTSTRAP_ROUNDS
    )
    base = draws @ base_gains
    ratios = np.divide(draws @ gains, base, out=np.ones(len(base)), where=base > 0) - 1.0
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(gains.sum() / base_gains.sum() - 1.0), float(low), float(high)


def facts(
    measurements: Measurements, verdict: PreferredThresholds, no_ensemble: str | None = None
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
            "verdict": sentence(verdict),
            "configured": list(verdict.configured),
            "best": list(verdict.preferred),
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
