"""Reports A/B experiments: numbers of each variant, their intervals, and a verdict.

The unit is the user: assigned, exposed and counted as one. The verdict compares the share of
exposed users with an outcome (events of weight above 0), which no single active user can change
much; the mean weight is shown beside it. There is no verdict before a variant has the number of
users that the difference to detect needs: stopping at the first significant day finds differences
that do not exist. With several variants each is compared at confidence 1 - 0.05 / comparisons
(Bonferroni), so that at most one experiment in twenty without any difference shows one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from core.experiments import Definition, Experiments, Variant, VariantCounts
from engines.experiments.intervals import (
    Estimate,
    Floats,
    balance,
    mean,
    mean_difference,
    needed,
    share_difference,
    wilson,
)

ERROR = 0.05
"""Share of experiments without a difference that show one (type I error)."""
MISMATCH = 0.001
"""P-value below which the numbers of users do not fit the variants' weights (sample ratio
mismatch): then there is no verdict.
"""

Verdict = Literal["control", "broken", "early", "better", "worse", "none"]


class Sample(NamedTuple):
    """The counts of one variant.

    `weights` (n_exposed,): sum of outcomes of each exposed user, 0 for a user without.

    `unexposed`: users with an outcome but without a recorded exposure; they count nowhere else.
    """

    variant: Variant
    answers: int
    weights: Floats
    unexposed: int
    events: Mapping[str, int]

    @property
    def share(self) -> tuple[int, int]:
        """Exposed users with an outcome, exposed users."""
        return int(np.count_nonzero(self.weights)), len(self.weights)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one variant.

    `difference`, `weight_difference`: to the control. `more_users`: users missing for a verdict.
    `sentence`: the verdict in words.
    """

    variant: str
    overrides: Mapping[str, Any]
    exposed_users: int
    answers: int
    events: Mapping[str, int]
    users_with_outcome: int
    unexposed_users: int
    share: Estimate | None
    mean_weight: Estimate | None
    difference: Estimate | None = None
    weight_difference: Estimate | None = None
    more_users: int | None = None
    verdict: Verdict = "control"
    sentence: str = "the others are compared with it"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one experiment.

    `needed_users`: of each variant, to show a difference of `detect`; null while the control has no
    outcome.

    `balance_chance`: p-value of the numbers of users given the weights; null before there are
    enough users.
    """

    experiment: str
    tag: str
    configured: bool
    since: float | None
    use_cases: Sequence[str]
    outcomes: Sequence[str]
    detect: float
    needed_users: int | None
    balance_chance: float | None
    variants: list[Row]


def analyse(samples: Sequence[Sample], detect: float) -> tuple[list[Row], int | None, float | None]:
    """Compare each sample with the first, the control.

    Returns a row for each, Report.needed_users and Report.balance_chance.
    """
    control, error = samples[0], ERROR / (len(samples) - 1)
    converted, users = control.share
    needed_users = needed(converted / users, detect, error) if users else None
    chance = balance(
        [sample.share[1] for sample in samples], [sample.variant.weight for sample in samples]
    )
    rows = [_row(control)]
    for sample in samples[1:]:
        difference = share_difference(sample.share, control.share, error)
        more = None if needed_users is None else max(0, needed_users - min(sample.share[1], users))
        verdict = (
            "broken" if chance is not None and chance < MISMATCH else _verdict(difference, more)
        )
        compared = {
            "difference": difference,
            "weight_difference": mean_difference(sample.weights, control.weights, error),
            "more_users": more,
            "verdict": verdict,
            "sentence": _sentence(verdict, difference, more, detect),
        }
        rows.append(msgspec.structs.replace(_row(sample), **compared))
    return rows, needed_users, chance


def _row(sample: Sample) -> Row:
    converted, users = sample.share
    return Row(
        variant=sample.variant.name,
        overrides=sample.variant.overrides,
        exposed_users=users,
        answers=sample.answers,
        events=sample.events,
        users_with_outcome=converted,
        unexposed_users=sample.unexposed,
        share=wilson(converted, users, ERROR),
        mean_weight=mean(sample.weights, ERROR),
    )


def _verdict(difference: Estimate | None, more: int | None) -> Verdict:
    if difference is None or more is None or more > 0:
        return "early"
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "none"


def _sentence(
    verdict: Verdict, difference: Estimate | None, more: int | None, detect: float
) -> str:
    """The verdict in a sentence."""
    if verdict == "broken":
        return (
            "no verdict: the variants' numbers of users do not fit their weights; look for "
            "lost exposures first"
        )
    if verdict == "early" or difference is None:
        wait = (
            "there is no outcome to go by yet"
            if more is None
            else f"{more:,} more users would show a difference of {detect:.0%}"
        )
        return f"too early to say: {wait}"
    between = f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f} points"
    return (
        f"no difference shown: {between}"
        if verdict == "none"
        else f"{verdict} than the control: {between}"
    )


def compare_all(
    running: Experiments,
    recorded: Mapping[str, Definition],
    read: Callable[[str], VariantCounts],
    detect: float,
) -> list[Report]:
    """The reports of the configured experiments, then those of experiments that were removed.

    `recorded`: tag -> definition, of the experiments with numbers; `read`: the numbers of a variant
    by its id. Raises what `read` raises.
    """
    results = []
    configured = {experiment.tag: experiment for experiment in running.all}
    for tag in [*configured, *(tag for tag in recorded if tag not in configured)]:
        experiment = configured.get(tag) or recorded[tag]
        samples = [_sample(variant, read(variant.id)) for variant in experiment.variants]
        rows, needed_users, chance = analyse(samples, detect)
        results.append(
            Report(
                experiment=experiment.name,
                tag=tag,
                configured=tag in configured,
                since=recorded[tag].since if tag in recorded else None,
                use_cases=experiment.use_cases,
                outcomes=experiment.variants[0].outcomes,
                detect=detect,
                needed_users=needed_users,
                balance_chance=chance,
                variants=rows,
            )
        )
    return results


def _sample(variant: Variant, counted: VariantCounts) -> Sample:
    weights = np.array(
        [counted.outcomes.get(user_id, 0.0) for user_id in counted.exposed], dtype=np.float64
    )
    unexposed = len(counted.outcomes.keys() - counted.exposed.keys())
    return Sample(variant, int(sum(counted.exposed.values())), weights, unexposed, counted.events)
