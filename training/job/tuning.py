"""The stage of a retrain that searches hyperparameters, for at most TUNE_SECONDS, when it may pay.

A search sees only the events before the cut, so the evaluation stays fair. It begins with the live
bundle's choice, or with the settings, and the best trial replaces that only when users who did not
choose it gain by it (training/tuning/gain.py). Hyperparameters that are set by hand are not
searched. The blend is chosen by every retrain (training/blend/choice.py), and needs no search here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from core.errors import DatasetError
from core.settings import Settings
from training import als
from training.job.context import Context
from training.tuning import als as tune_als
from training.tuning import als_trial
from training.tuning import record as tuning_record
from training.tuning.options import Scope, TuneOptions
from training.tuning.record import SEARCHED, SKIPPED, Decision, Record, Searches
from training.two_tower import command as two_tower_command
from training.two_tower import hyperparameters as two_tower
from training.two_tower.fit_types import TrainingData

ALS_SHARE = 0.5
"""Share of the time for ALS where Two-Tower is searched, too; what one leaves goes to the other."""
LEAST_S = 1.0
"""Seconds below which a remaining budget is not used."""
ALS_PATIENCE, TWO_TOWER_PATIENCE = 40, 15
"""A search ends after so many trials in a row without a better one."""
CANDIDATES = 4
"""Best trials of the last search that the next one tries again."""
_NOT_RECORDED = ("dataset", "minutes", "configured", "best")
"""Facts of `tune` that the bundle has elsewhere, or in `tried`."""

log = structlog.get_logger(__name__)

_T = TypeVar("_T", als.Hyperparameters, two_tower.Hyperparameters)


@dataclass(frozen=True)
class _Budget:
    """What a search may use: the events of `data`, until `deadline` (monotonic)."""

    context: Context
    data: TrainingData
    fixed: frozenset[str]
    deadline: float

    @property
    def seconds(self) -> float:
        """Seconds until the deadline; 0 below LEAST_S."""
        left = self.deadline - time.monotonic()
        return left if left >= LEAST_S else 0.0

    def options(self, seconds: float) -> TuneOptions:
        """Of a search in memory: a killed retrain searches anew."""
        settings, threads = self.context.settings, self.context.options.threads
        trials = settings.tune_trials or None
        return TuneOptions(None, Path(tuning_record.FILE), seconds / 60.0, trials, threads=threads)

    def scope(self, part: str, start: _T, former: Mapping[str, Any] | None, patience: int) -> Scope:
        """`former`: facts of the last search; its best trials are tried again."""
        run, name = self.context.run, part.replace("_", "-")
        return Scope(
            where=self.data.where,
            start=start,
            candidates=_candidates(start, former)
            or (als_trial.USUAL_CHOICES if part == "als" else ()),
            fixed=_names(self.fixed, part),
            patience=patience,
            report=lambda text: run.progress(f"{name}: {text}"),
            overtime=False,
        )


def tune(context: Context, data: TrainingData) -> Context:
    """`context` with the hyperparameters to fit with, and the record of how they were found.

    `data`: what the models are fitted on before the cut. Raises Interrupted.
    """
    settings = context.settings
    if context.options.hyperparameters is not None:
        context.run.step("tune", f"not: {context.options.hyperparameters} decides")
        return context
    former, fixed = tuning_record.of_live(context.registry), set_by_hand(settings)
    if former is not None:
        context = replace(
            context,
            als=_merged(context.als, former.als, als_trial.SEARCHED, _names(fixed, "als")),
            two_tower=_merged(
                context.two_tower, former.two_tower, two_tower.SEARCHED, _names(fixed, "two_tower")
            ),
        )
    events = data.dataset.events if data.where is None else int(data.where.sum())
    reason = tuning_record.why_search(former, events, fixed, settings.tune_seconds)
    if not settings.tune_seconds or not reason:
        cause = "a search would not pay" if settings.tune_seconds else "TUNE_SECONDS=0"
        stays = "the settings apply" if former is None else "the live bundle's choice stays"
        context.run.step("tune", f"not: {cause}; {stays}")
        return replace(context, tuning=None if former is None else former.reused(cause))
    context.run.step("tune", f"for at most {settings.tune_seconds:g} s: {reason}")
    decision = Decision(
        decision=SEARCHED,
        reason=reason,
        events=events,
        fixed=fixed,
        budget_s=settings.tune_seconds,
    )
    return _search(context, data, former, decision)


def set_by_hand(settings: Settings) -> list[str]:
    """The settings of searched hyperparameters that are set by hand."""
    names = [f"als_{name}" for name in als_trial.SEARCHED]
    names += [f"two_tower_{name}" for name in two_tower.SEARCHED]
    return [name for name in names if name in settings.model_fields_set]


def _search(
    context: Context, data: TrainingData, former: Record | None, decision: Decision
) -> Context:
    deadline = time.monotonic() + decision.budget_s
    budget = _Budget(context, data, frozenset(decision.fixed), deadline)
    last = former.tuned if former is not None else None
    try:
        of_als, of_two_tower = _search_parts(budget, last)
    except DatasetError as error:
        log.warning("hyperparameters_not_searched", cause=str(error))
        of_als = of_two_tower = None
        decision = msgspec.structs.replace(decision, decision=SKIPPED, reason=str(error))
    tuned_als, als_facts = _choose(context.als, of_als, "als")
    tuned_two_tower, two_tower_facts = _choose(context.two_tower, of_two_tower, "two_tower")
    for name, facts in (("ALS", als_facts), ("Two-Tower", two_tower_facts)):
        if facts is not None:
            context.console.print(f"{name}: {facts['verdict']}.")
            shown = {name: facts.get(name) for name in tuning_record.SEARCH}
            log.info("hyperparameters_searched", model=name, **shown)
    record = Record(
        tuned=Searches(
            retrain=msgspec.structs.replace(
                decision, at=datetime.now(UTC).isoformat(timespec="seconds")
            ),
            als=als_facts,
            two_tower=two_tower_facts,
        ),
        als=tuned_als,
        two_tower=tuned_two_tower,
    )
    return replace(context, als=tuned_als, two_tower=tuned_two_tower, tuning=record)


def _search_parts(
    budget: _Budget, last: Searches | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The sections of both searches; None for one that completed no trial. Raises DatasetError."""
    context, data = budget.context, budget.data
    with_two_tower = two_tower_command.unavailable(context.settings) is None and set(
        two_tower.SEARCHED
    ) > _names(budget.fixed, "two_tower")
    scope = budget.scope("als", context.als, last.als if last else None, ALS_PATIENCE)
    search = None
    if set(als_trial.SEARCHED) > scope.fixed:
        seconds = budget.seconds * (ALS_SHARE if with_two_tower else 1.0)
        search = tune_als.Search(data.dataset, context.settings, budget.options(seconds), scope)
        search.run(seconds)
    of_two_tower = (
        _search_two_tower(budget, last.two_tower if last else None) if with_two_tower else None
    )
    if search is None:
        return None, of_two_tower
    search.run(budget.seconds)
    sections = search.sections()
    if sections is not None:
        sections["tuned"]["tried"] = search.trials()
    return sections, of_two_tower


def _search_two_tower(budget: _Budget, last: Mapping[str, Any] | None) -> dict[str, Any] | None:
    from training.tuning import two_tower as tune_two_tower

    context, data = budget.context, budget.data
    scope = budget.scope("two_tower", context.two_tower, last, TWO_TOWER_PATIENCE)
    options = budget.options(budget.seconds)
    if not options.minutes:
        return None
    try:
        return tune_two_tower.search(data.dataset, data.entries, context.settings, options, scope)
    except tune_two_tower.TooSlow as error:
        log.info("two_tower_not_searched", cause=str(error), seconds=round(60 * options.minutes))
        return None


def _choose(
    start: _T, sections: Mapping[str, Any] | None, part: str
) -> tuple[_T, dict[str, Any] | None]:
    """The hyperparameters to fit with, and the facts for the record.

    The best trial, when users who did not choose it gain by it; else `start`.
    """
    if sections is None:
        return start, None
    tuned, start_row = sections["tuned"], sections["tuned"]["configured"]
    best = msgspec.convert(sections[part], type(start))
    gain = tuned["gain"]
    better = gain is not None and gain[0] > 0
    choice = best if better else start
    former = start_row["value"] if isinstance(start_row, Mapping) else start_row
    facts = {
        **{name: value for name, value in tuned.items() if name not in _NOT_RECORDED},
        "chosen": msgspec.to_builtins(choice),
        "former": msgspec.to_builtins(start),
        "former_value": former,
    }
    trials = f"{tuned['trials']} trials in {tuned['seconds']:.0f} s"
    if gain is None:
        verdict = f"{trials}; too few to compare with the former choice, which stays"
    else:
        verdict = (
            f"{trials}; the best gains {gain[0]:+.4f} {tuned['objective']} ({gain[1]:+.4f} to "
            f"{gain[2]:+.4f}) over the former choice ({former:.4f})"
            f"{'' if better else ', which stays'}"
        )
    return choice, {**facts, "verdict": verdict}


def _merged(
    settings: _T, former: _T | None, searched: tuple[str, ...], fixed: frozenset[str]
) -> _T:
    """The hyperparameters of the settings, with those that a former search chose."""
    if former is None:
        return settings
    choices = {name: getattr(former, name) for name in searched if name not in fixed}
    return msgspec.structs.replace(settings, **choices)


def _candidates(start: _T, former: Mapping[str, Any] | None) -> list[_T]:
    """The best trials of the former search beside `start`."""
    rows = [row for row in (former or {}).get("tried", []) if row.get("value") is not None]
    best = sorted(rows, key=lambda row: -row["value"])[:CANDIDATES]
    try:
        points = [msgspec.convert(row, type(start)) for row in best]
    except msgspec.ValidationError as error:  # of another release
        log.warning("former_trials_not_readable", error=str(error))
        return []
    return [point for point in points if point != start]


def _names(fixed: Any, part: str) -> frozenset[str]:
    """The hyperparameters of `part` among the names of settings in `fixed`."""
    prefix = f"{part}_"
    return frozenset(name.removeprefix(prefix) for name in fixed if name.startswith(prefix))
