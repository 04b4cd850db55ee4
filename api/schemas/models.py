"""What the routes about models answer, as the OpenAPI page shows it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

VERSION = "2026-11-22T10-00-00Z"


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelSummary(_Answer):
    """One published version."""

    version: str = Field(examples=[VERSION])
    live: bool = Field(
        description="whether the pointer names it; every process serves it within REFRESH_S"
    )
    created: str = Field(examples=["2026-11-22T10:00:00+00:00"])
    events: int | None = Field(description="events it was made from")
    parts: list[str] = Field(examples=[["als", "content", "popular"]])
    metrics: dict[str, dict[str, float | None]] = Field(
        description="as judged when it was made, by engine",
        examples=[{"als": {"ndcg@10": 0.21, "recall@10": 0.12}}],
    )
    gate: str = Field(
        description="accepted or refused, when it was compared with the version live at the time",
        examples=["accepted"],
    )
    forced: bool = Field(description="published although the gate had refused it")
    problem: str | None = Field(description="why it cannot be read")


class Retrain(_Answer):
    """How the last retrain went, or how far the running one is."""

    status: str = Field(
        description="running, published, refused, failed, interrupted or died", examples=["running"]
    )
    step: str = Field(
        description="snapshot, dataset, fit, evaluate, gate, publish or prune", examples=["fit"]
    )
    progress: str | None = Field(examples=["sweep 12 of 20"])
    started: str = Field(examples=["2026-11-22T09:58:00+00:00"])
    at: str = Field(description="when this was noted")
    seconds: float = Field(description="since it started")
    holder: str = Field(description="host:pid:id of the process", examples=["trainer-1:7:3f2a9c01"])
    requested_by: str | None = Field(examples=["schedule"])
    reason: str | None
    request: str | None = Field(
        description="token of the request", examples=["retrain-requests:2:17"]
    )
    version: str | None = Field(description="what it published", examples=[VERSION])
    error: str | None = Field(description="why it was refused or failed")


class Models(_Answer):
    """Every published version, newest first, and the last retrain."""

    live: str | None = Field(description="what the pointer names", examples=[VERSION])
    serving: str | None = Field(description="what this process answers from", examples=[VERSION])
    versions: list[ModelSummary]
    retrain: Retrain | None = Field(
        description="null before the first, or while Redis is away (`degraded`)"
    )
    degraded: bool


class Model(_Answer):
    """One version's manifest; docs/bundle.md describes it."""

    version: str = Field(examples=[VERSION])
    live: bool
    manifest: dict[str, Any]


class Difference(_Answer):
    """What two manifests say differently: dotted name, then what each says, null where it says
    nothing.
    """

    a: str
    b: str
    differences: dict[str, list[Any]] = Field(examples=[{"settings.als.factors": [64, 128]}])


class Promoted(_Answer):
    """Which version is live now."""

    live: str = Field(examples=[VERSION])
    was: str | None = Field(
        description="the version that was live before", examples=["2026-11-15T03-00-00Z"]
    )


class RetrainRequest(BaseModel):
    """Why a retrain is wanted."""

    reason: str = Field(default="", max_length=500, examples=["new catalogue"])


class RetrainRequested(_Answer):
    """The request is in the log; a training worker takes it from there, and GET /api/models shows
    how far it is.
    """

    token: str = Field(description="topic:partition:offset", examples=["retrain-requests:2:17"])
