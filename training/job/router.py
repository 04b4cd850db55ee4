"""Judges the router by the judged users: what they get, and by which thresholds they get the most.

The evaluation has already made every answer that the router could give: each engine first, with
its fallbacks behind it. So this costs no further answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.settings import Settings
from models.router.served import Served, ServedSegment
from models.router.thresholds import PreferredThresholds
from training.evaluation import evaluate
from training.evaluation.evaluate import ROUTED, SEGMENTS, Evaluation
from training.tuning import router as tune_router
from training.tuning.router_measurements import ENGINES, LEAST_USERS, Measurements

CUTOFF = 10


@dataclass(frozen=True)
class RouterJudgement:
    """`served`: what users get; None with fewer than LEAST_USERS judged users.

    `evaluation`: with what the router gives by the thresholds that apply, as serving will have
    them.
    """

    evaluation: Evaluation
    served: Served | None


def judge(evaluation: Evaluation, settings: Settings) -> RouterJudgement:
    """Choose the thresholds by the users of `evaluation`, of every engine and as routed."""
    measurements = of_evaluation(evaluation)
    if len(measurements.user) < LEAST_USERS:
        return RouterJudgement(evaluation, None)
    configured = settings.cold_start_threshold, settings.warm_user_threshold
    thresholds = tune_router.judge(measurements, configured, evaluation.judged.seed)
    if settings.router == "auto" and thresholds.better:
        picked = measurements.picked(thresholds.preferred)
        evaluation = evaluate.with_routed(evaluation, [ENGINES[column] for column in picked])
    served = Served(
        router=settings.router,
        segments=_segments(evaluation, measurements, thresholds),
        thresholds=thresholds,
    )
    return RouterJudgement(evaluation, served)


def of_evaluation(evaluation: Evaluation) -> Measurements:
    """NDCG@10 of each answer that the router could give, one row a judged user."""
    states = evaluation.judged.states
    return Measurements(
        np.arange(len(states)),
        np.array([state.events for state in states], dtype=np.int64),
        np.column_stack([evaluation.answer_ndcg(engine, CUTOFF) for engine in ENGINES]),
    )


def _segments(
    evaluation: Evaluation, measurements: Measurements, thresholds: PreferredThresholds
) -> list[ServedSegment]:
    fixed = auto = measurements.routed(thresholds.configured)
    if thresholds.better:
        auto = tune_router.cross_validated(
            measurements, thresholds.configured, evaluation.judged.seed
        )
    rows = [row for row in evaluation.rows if row["metric"] == f"ndcg@{CUTOFF}"]
    segments = []
    for name in SEGMENTS:
        single = [
            row
            for row in rows
            if row["segment"] == name and row["engine"] not in (ROUTED, "ensemble")
        ]
        if not single:
            continue
        best = max(single, key=lambda row: row["mean"] or 0.0)
        members = (evaluation.judged.segments == name) | (name == "all")
        segments.append(
            ServedSegment(
                segment=name,
                users=int(members.sum()),
                fixed=round(float(fixed[members].mean()), 6),
                auto=round(float(auto[members].mean()), 6),
                best_engine=best["engine"],
                best=best["mean"] or 0.0,
                low=best["low"] or 0.0,
                high=best["high"] or 0.0,
            )
        )
    return segments
