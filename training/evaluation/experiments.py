"""Reads and prints the results of A/B experiments; engines/experiments computes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich.console import Console

from core.errors import ConfigurationError
from core.process.tables import Column, Table
from core.settings import Settings
from engines.experiments.intervals import Estimate
from engines.experiments.report import Report, compare_all
from store.state.entities import experiments
from store.state.shards import Shards


def reports(settings: Settings, detect: float) -> list[Report]:
    """The reports of the configured experiments, then those of experiments that were removed.

    Raises ConfigurationError where Redis has state of another REDIS_SHARDS, StoreUnavailable,
    StoreCorrupt.
    """
    with Shards(settings) as shards:
        recorded = experiments.recorded(shards)
        read = partial(experiments.read, shards)
        return compare_all(settings.experiments, recorded, read, detect)


def forget(settings: Settings, tag: str) -> None:
    """Delete the numbers of the experiment `tag`.

    Raises ConfigurationError for an unknown tag, or where Redis has state of another REDIS_SHARDS;
    StoreUnavailable, StoreCorrupt.
    """
    with Shards(settings) as shards:
        if not experiments.forget(shards, tag):
            tags = ", ".join(experiments.definitions(shards.first)) or "none"
            raise ConfigurationError(
                f"there is no experiment with the tag {tag!r}; those with numbers: {tags}"
            )


def show(results: Sequence[Report], console: Console) -> None:
    """Print the reports as tables, each with its verdicts below."""
    if not results:
        console.print("no experiment is configured (EXPERIMENTS_PATH), and none has numbers")
    for report in results:
        removed = [] if report.configured else ["no longer configured"]
        about = [report.tag, *removed, *report.use_cases]
        if report.outcomes:
            about.append(f"outcomes: {' '.join(report.outcomes)}")
        title = f"{report.experiment} ({', '.join(about)})"
        table = Table(
            Column("variant"),
            Column("users", number=True),
            Column("answers", 2, number=True),
            Column("with outcome", 3, number=True),
            Column("share, %", number=True),
            Column("to control", number=True),
            Column("mean weight", 1, number=True),
            title=title,
        )
        for row in report.variants:
            table.add(
                row.variant,
                f"{row.exposed_users:,}",
                f"{row.answers:,}",
                f"{row.users_with_outcome:,}",
                _shown(row.share, 100, ".1f"),
                _shown(row.difference, 100, "+.1f"),
                _shown(row.mean_weight, 1, ".2f"),
            )
        table.show(console)
        for row in report.variants[1:]:
            console.print(f"{row.variant}: {row.sentence}", highlight=False)
        for remark in _remarks(report):
            console.print(remark, highlight=False)


def _remarks(report: Report) -> list[str]:
    remarks = []
    if unexposed := sum(row.unexposed_users for row in report.variants):
        remarks.append(
            f"{unexposed:,} users with an outcome are not counted: no exposure is recorded "
            f"for the answer that led to it"
        )
    if any(row.exposed_users for row in report.variants) and not any(
        row.events for row in report.variants
    ):
        remarks.append(
            "no event has a recommendation_id of this experiment yet: check that clients "
            "send it and ingest has EXPERIMENTS_PATH"
        )
    return remarks


def _shown(estimate: Estimate | None, scale: float, form: str) -> str:
    if estimate is None:
        return "-"
    value, low, high = (
        format(scale * number, form) for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value}\n[{low}, {high}]"
