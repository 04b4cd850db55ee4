"""Settings of a retrain: seed, evaluation, gate, schedule."""

from __future__ import annotations

from pydantic import BaseModel, Field


class TrainingSettings(BaseModel, frozen=True):
    """How a retrain is evaluated, gated, published and scheduled."""

    training_seed: int = Field(
        42,
        ge=0,
        description="seed of every random choice in training; recorded in the bundle",
    )
    holdout_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of the events, the latest ones, that evaluation ranks",
    )
    evaluation_processes: int = Field(
        0,
        ge=0,
        description=(
            "most processes that answer the users of an evaluation, when there are so many that "
            "it saves time; 0: one for each core; their number changes no result"
        ),
    )
    gate_margin: float = Field(
        0.05,
        ge=0,
        le=1,
        description=(
            "the gate refuses a bundle whose NDCG@10 is lower than that of the live bundle by "
            "more than this fraction"
        ),
    )
    tune_seconds: float = Field(
        60.0,
        ge=0,
        description=(
            "most seconds that a retrain searches hyperparameters for, when a search may pay "
            "(docs/als-training-guide.md); 0: never, the choice of the live bundle stays"
        ),
    )
    tune_trials: int = Field(
        0,
        ge=0,
        description=(
            "most trials of each search; 0: as many as TUNE_SECONDS allows, which differs from "
            "run to run"
        ),
    )
    keep_bundles: int = Field(
        5,
        ge=1,
        description="bundles that remain after pruning; the live bundle always remains",
    )
    training_lease_s: float = Field(
        60.0,
        ge=5,
        description="seconds after which the lease of a killed trainer expires",
    )
    retrain_schedule: str = Field(
        "auto",
        description=(
            "when live workers request a retrain: weekly, biweekly, monthly, auto (by event "
            "volume), off, or five fields of cron in UTC"
        ),
    )
