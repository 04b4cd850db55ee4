"""The searches for hyperparameters that a bundle keeps (tuning.json), and whether a further pays.

The file has the form of the one that `python -m training tune` writes, so `--hyperparameters` takes
it, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from core.errors import ModelError
from models import files
from models.registry import Registry
from training.als import Hyperparameters as ALSHyperparameters
from training.two_tower.hyperparameters import Hyperparameters as TwoTowerHyperparameters

FILE = "tuning.json"
SEARCHED, REUSED, SKIPPED = "searched", "reused", "skipped"
"""Values of `decision`: this retrain searched; it used the choice of an earlier search; there was
nothing to search by.
"""
GROWTH = 1.5
"""Factor by which the events of the data must grow or shrink before a search pays again."""
SEARCH = ("objective", "value", "former_value", "gain", "trials", "finished", "seconds", "users")
"""Facts of a search that the log has."""
SUMMARY = (*SEARCH, "former", "verdict")
"""Facts of a search that the manifest repeats."""

_log = structlog.get_logger(__name__)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Why a retrain searched or did not.

    `events`, `fixed`, `budget_s`, `at`: of the last search: events that it used, settings that were
    set by hand, its TUNE_SECONDS, and when it ended.
    """

    decision: str
    reason: str
    events: int = 0
    fixed: list[str] = []
    budget_s: float = 0.0
    at: str = ""


class Searches(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of each part's last search: see docs/bundle.md."""

    retrain: Decision
    als: dict[str, Any] | None = None
    two_tower: dict[str, Any] | None = msgspec.field(default=None, name="two-tower")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """tuning.json: the chosen hyperparameters, and how they were found."""

    tuned: Searches
    als: ALSHyperparameters | None = None
    two_tower: TwoTowerHyperparameters | None = None

    def reused(self, reason: str) -> Record:
        """The same record in a bundle whose retrain did not search, for `reason`."""
        decision = msgspec.structs.replace(self.tuned.retrain, decision=REUSED, reason=reason)
        return msgspec.structs.replace(
            self, tuned=msgspec.structs.replace(self.tuned, retrain=decision)
        )

    def summary(self) -> dict[str, Any]:
        """The searches without their trials, for the manifest."""
        parts = {"als": self.tuned.als, "two_tower": self.tuned.two_tower}
        return {
            **msgspec.to_builtins(self.tuned.retrain),
            **{
                part: {name: facts.get(name) for name in SUMMARY}
                for part, facts in parts.items()
                if facts is not None
            },
        }


def of_live(registry: Registry) -> Record | None:
    """The record of the live bundle; None when it has none, or when it cannot be read."""
    try:
        version = registry.current()
        path = registry.path / str(version) / FILE
        return files.read_json(path, Record) if version is not None and path.is_file() else None
    except ModelError as error:
        _log.warning("tuning_record_not_readable", error=str(error))
        return None


def why_search(former: Record | None, events: int, fixed: list[str], budget_s: float) -> str:
    """Why a search pays; empty when it does not.

    `events`: those that it could use; `fixed`: settings that are set by hand; `budget_s`:
    TUNE_SECONDS.
    """
    if former is None:
        return "the live bundle has no search"
    last = former.tuned.retrain
    if sorted(fixed) != sorted(last.fixed):
        return "other hyperparameters are set by hand than at the last search"
    if budget_s > last.budget_s:
        return f"TUNE_SECONDS was {last.budget_s:g} at the last search"
    if not last.events / GROWTH < events < last.events * GROWTH:
        return f"{events:,} events, {last.events:,} at the last search"
    parts: list[Mapping[str, Any] | None] = [former.tuned.als, former.tuned.two_tower]
    gains = [facts["gain"] for facts in parts if facts is not None and facts.get("gain")]
    if any(gain[1] > 0 for gain in gains):
        return "the last search gained more than its error"
    return ""
