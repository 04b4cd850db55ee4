"""What experiments have shown so far: each variant's numbers, how sure they are, and what may be concluded.

A user is the unit: drawn as one, exposed as one, counted as one. A verdict rests on the share of exposed users with an outcome (events of
weight above 0), which no single busy user can move; the mean weight is shown beside it. A verdict waits until a variant has the users that
the difference looked for needs: who looks daily and stops at the first good day finds differences where there are none. With several
variants each is compared at 1 - 0.05 / comparisons (Bonferroni), so that one experiment in twenty without any difference shows one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from core.errors import ConfigurationError
from core.experiments import Variant
from core.settings import Settings
from store.state import connection
from store.state.entities import experiments
from training.evaluation.intervals import Estimate, Floats, balance, mean, mean_difference, needed, share_difference, wilson

ERROR = 0.05
"""Share of experiments without a difference that show one all the same."""
MISMATCH = 0.001
"""Chance below which the variants' numbers of users do not fit their weights: then something is broken, and no verdict holds."""

Verdict = Literal["control", "broken", "early", "better", "worse", "none"]


class Sample(NamedTuple):
    """What is counted of one variant: `weights` (n_exposed,), each exposed user's outcomes, 0 for a user without.

    `unexposed`: users with an outcome of whom no answer is noted; they are in nothing else here.
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
    """One variant. `difference`, `weight_difference`: to the control. `more_users`: what it or the control lacks for a verdict."""

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
    told: str = "the others are compared with it"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment. `needed_users`: of each variant, to show a difference of `detect`; null while the control has no outcome.

    `balance_chance`: that random draws give numbers of users as far from the weights as these; null before there are enough.
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
    """A row for each sample, the control first; Report.needed_users; Report.balance_chance."""
    control, error = samples[0], ERROR / (len(samples) - 1)
    converted, users = control.share
    wanted = needed(converted / users, detect, error) if users else None
    chance = balance([sample.share[1] for sample in samples], [sample.variant.weight for sample in samples])
    rows = [_row(control)]
    for sample in samples[1:]:
        difference = share_difference(sample.share, control.share, error)
        more = None if wanted is None else max(0, wanted - min(sample.share[1], users))
        verdict = "broken" if chance is not None and chance < MISMATCH else _verdict(difference, more)
        compared = {
            "difference": difference,
            "weight_difference": mean_difference(sample.weights, control.weights, error),
            "more_users": more,
            "verdict": verdict,
            "told": _told(verdict, difference, more, detect),
        }
        rows.append(msgspec.structs.replace(_row(sample), **compared))
    return rows, wanted, chance


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


def _told(verdict: Verdict, difference: Estimate | None, more: int | None, detect: float) -> str:
    """The verdict in a sentence."""
    if verdict == "broken":
        return "no verdict: the variants' numbers of users do not fit their weights; look for lost exposures before anything else"
    if verdict == "early" or difference is None:
        wait = "there is no outcome to go by yet" if more is None else f"{more:,} more users would show a difference of {detect:.0%}"
        return f"too early to say: {wait}"
    between = f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f} points"
    return f"no difference shown: {between}" if verdict == "none" else f"{verdict} than the control: {between}"


def reports(settings: Settings, detect: float) -> list[Report]:
    """The configured experiments, then those with numbers that are configured no longer. Raises StoreUnavailable, StoreCorrupt."""
    found = []
    with connection.connect(settings) as client:
        noted = experiments.noted(client)
        running = {each.tag: each for each in settings.experiments.all}
        for tag in [*running, *(tag for tag in noted if tag not in running)]:
            about = running.get(tag) or noted[tag]
            samples = [_sample(variant, experiments.read(client, variant.id)) for variant in about.variants]
            rows, wanted, chance = analyse(samples, detect)
            found.append(
                Report(
                    experiment=about.name,
                    tag=tag,
                    configured=tag in running,
                    since=noted[tag].since if tag in noted else None,
                    use_cases=about.use_cases,
                    outcomes=about.variants[0].outcomes,
                    detect=detect,
                    needed_users=wanted,
                    balance_chance=chance,
                    variants=rows,
                )
            )
    return found


def _sample(variant: Variant, counted: experiments.Counted) -> Sample:
    weights = np.array([counted.outcomes.get(user_id, 0.0) for user_id in counted.exposed], dtype=np.float64)
    unexposed = len(counted.outcomes.keys() - counted.exposed.keys())
    return Sample(variant, int(sum(counted.exposed.values())), weights, unexposed, counted.events)


def forget(settings: Settings, tag: str) -> None:
    """Remove what is counted of an experiment. Raises ConfigurationError for one that is not there, StoreUnavailable."""
    with connection.connect(settings) as client:
        if not experiments.forget(client, tag):
            known = ", ".join(experiments.noted(client)) or "none"
            raise ConfigurationError(f"there is no experiment with the tag {tag!r}; those with numbers: {known}")


def show(found: Sequence[Report], console: Console) -> None:
    """The reports as tables, each with its verdicts below."""
    if not found:
        console.print("no experiment is configured (EXPERIMENTS_PATH), and none has numbers")
    for report in found:
        about = [report.tag, *([] if report.configured else ["no longer configured"]), *report.use_cases]
        if report.outcomes:
            about.append(f"outcomes: {' '.join(report.outcomes)}")
        title = f"{report.experiment} ({', '.join(about)})"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))  # 80 columns, where output is piped
        table.add_column("variant")
        for name in ("users", "answers", "with outcome"):
            table.add_column(name, justify="right")
        for name in ("share, %", "to control", "mean weight"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in report.variants:
            table.add_row(
                row.variant,
                *(f"{count:,}" for count in (row.exposed_users, row.answers, row.users_with_outcome)),
                _shown(row.share, 100, ".1f"),
                _shown(row.difference, 100, "+.1f"),
                _shown(row.mean_weight, 1, ".2f"),
            )
        console.print(table)
        for row in report.variants[1:]:
            console.print(f"{row.variant}: {row.told}", highlight=False)
        for remark in _remarks(report):
            console.print(remark, highlight=False)


def _remarks(report: Report) -> list[str]:
    remarks = []
    if unexposed := sum(row.unexposed_users for row in report.variants):
        remarks.append(f"{unexposed:,} users with an outcome are left out: the answer that led to it is not noted")
    if any(row.exposed_users for row in report.variants) and not any(row.events for row in report.variants):
        remarks.append("no event carries a recommendation_id of it yet: do clients send it on, and has ingest the same EXPERIMENTS_PATH?")
    return remarks


def _shown(estimate: Estimate | None, scale: float, form: str) -> str:
    if estimate is None:
        return "-"
    value, low, high = (format(scale * number, form) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value}\n[{low}, {high}]"
