"""Decides whether a new bundle may go live.

It compares both bundles on the same users and the same held-out events.

The comparison is fair because neither was fitted on those events. The candidate has the models
fitted before the cut. The live bundle is evaluated with its models in evaluation/, fitted before an
earlier cut; its published parts were refreshed with events that may lie after this cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.errors import ModelError
from core.settings import Settings
from models.als import ALSModel
from models.bundle import Bundle
from models.registry import Registry
from models.two_tower import TwoTowerModel
from training.evaluation import evaluate, metrics, output
from training.evaluation.evaluate import NAMES, ROUTED, Evaluation, Inputs
from training.evaluation.population import JudgedUsers

ACCEPTED, REFUSED = "accepted", "refused"
JUDGED_ALS = "evaluation/als"
"""Folder, in a bundle, of the ALS model that its metrics describe."""
JUDGED_TWO_TOWER = "evaluation/two_tower"
"""The same for Two-Tower."""
METRIC = "ndcg@10"


@dataclass(frozen=True)
class Live:
    """The live bundle before this retrain.

    `version`: None without one. `missing`: why there is nothing to compare with. `evaluation`: of
    the judged users; None without them. `note`: for the manifest.
    """

    version: str | None
    missing: str = ""
    evaluation: Evaluation | None = None
    note: str = ""

    def still(self, registry: Registry) -> bool:
        """Whether it is still the live bundle: an operator may roll back during a fit."""
        try:
            return registry.current() == self.version
        except ModelError:
            return self.version is None


def ask_live(
    registry: Registry,
    inputs: Inputs | None,
    judged: JudgedUsers | None,
    on_user: Callable[[], None] | None = None,
) -> Live:
    """Evaluate the live bundle with the `judged` users.

    `inputs` is None when the events cannot be split.

    `on_user`: as of `evaluate.evaluate`.
    """
    try:
        version = registry.current()
        bundle = registry.load(version, strict=True) if version is not None else None
    except ModelError as error:
        return Live(None, f"the live bundle cannot be read: {error}")
    if bundle is None:
        return Live(None, "there is no live bundle yet")
    if inputs is None or judged is None:
        return Live(version)
    unseen, note = _unseen(registry, bundle)
    # one process: it runs beside a fit, which uses the other cores
    answers = evaluate.evaluate(unseen, inputs, judged, (ROUTED,), on_user, most_processes=1)
    return Live(version, evaluation=answers, note=note)


def decide(
    live: Live, candidate: Evaluation | None, unjudged: str, settings: Settings
) -> dict[str, Any]:
    """`{"decision": accepted or refused, "cause": ..., ...}`: what goes into the manifest.

    Refused when the routed NDCG@10 is lower than the live bundle's by more than GATE_MARGIN of it,
    and the 95% interval of the users' differences lies below 0 (with a few users a margin alone
    would refuse by chance). Refused, too, when there is a live bundle but nothing to judge by.
    `unjudged`: why there is no evaluation.
    """
    if live.missing:
        return {"decision": ACCEPTED, "cause": live.missing}
    if candidate is None or live.evaluation is None:
        return {
            "decision": REFUSED,
            "live": live.version,
            "cause": f"the new bundle cannot be judged: {unjudged}",
        }
    theirs = live.evaluation
    ours, live_mean = candidate.mean(ROUTED, METRIC), theirs.mean(ROUTED, METRIC)
    column = NAMES.index(METRIC)
    low, high = metrics.bootstrap(
        (candidate.values[ROUTED] - theirs.values[ROUTED])[:, [column]], candidate.judged.seed
    )
    worse = ours < live_mean * (1.0 - settings.gate_margin)
    refused = worse and bool(high[0] < 0.0)
    comparison = (
        f"{METRIC} {ours:.4f} against {live_mean:.4f} of {live.version} on "
        f"{len(candidate.judged.users)} users "
        f"(difference {low[0]:+.4f} to {high[0]:+.4f})"
    )
    cause = (
        f"{comparison}: worse by more than {settings.gate_margin:.0%}"
        if refused
        else f"{comparison}: lower, but within what chance does"
        if worse
        else comparison
    )
    return {
        "decision": REFUSED if refused else ACCEPTED,
        "cause": cause,
        "live": live.version,
        METRIC: ours,
        f"live_{METRIC}": live_mean,
        "difference": [float(low[0]), float(high[0])],
        "margin": settings.gate_margin,
        "note": live.note,
    }


def compared(
    live: Live, candidate: Evaluation | None, verdict: Mapping[str, Any]
) -> dict[str, Any]:
    """The result of a retrain: the decision, and the metrics of both bundles for the same users."""
    theirs = live.evaluation
    return {
        "decision": verdict["decision"],
        "cause": verdict["cause"],
        "users": len(candidate.judged.users) if candidate is not None else 0,
        "metrics": output.headline(candidate) if candidate is not None else {},
        "live": live.version,
        "live_metrics": output.headline(theirs) if theirs is not None else {},
        "difference": verdict.get("difference"),
    }


def _unseen(registry: Registry, bundle: Bundle) -> tuple[Bundle, str]:
    """The live bundle with the models that have not seen the events after its own cut."""
    folder = registry.path / str(bundle.version) / JUDGED_ALS
    if not folder.is_dir():
        return (
            bundle,
            (
                "the live bundle keeps no model from before its cut; it may have seen the "
                "held-out events, which favours it"
            ),
        )
    unseen: dict[str, Any] = {"als": ALSModel.load(folder)}
    if (two_tower := registry.path / str(bundle.version) / JUDGED_TWO_TOWER).is_dir():
        unseen["two_tower"] = TwoTowerModel.load(two_tower)
    return replace(bundle, parts={**bundle.parts, **unseen}), ""
