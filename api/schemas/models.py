"""The answers of the routes about models."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from api.schemas.answers import Answer
from models.listing import SUMMARY, ModelSummary

VERSION = "2026-11-22T10-00-00Z"


class GateVerdict(Answer, frozen=True, kw_only=True):
    """The gate's decision, with the metrics of the new bundle and of the live one."""

    decision: Annotated[
        str, Meta(description="accepted or refused; --force publishes all the same")
    ]
    cause: str
    users: Annotated[int, Meta(description="users that both bundles were judged by")]
    metrics: Annotated[
        dict[str, dict[str, float | None]],
        Meta(
            description="of the new bundle, by engine",
            examples=[{"routed": {"ndcg@10": 0.049, "recall@10": 0.031}}],
        ),
    ]
    live: Annotated[
        str | None, Meta(description="the version that was live then", examples=[VERSION])
    ]
    live_metrics: Annotated[
        dict[str, dict[str, float | None]],
        Meta(
            description="of that version for the same users; of routed answers only",
            examples=[{"routed": {"ndcg@10": 0.1005, "recall@10": 0.064}}],
        ),
    ]
    difference: Annotated[
        list[float] | None,
        Meta(description="95% interval of the difference in NDCG@10, new minus live"),
    ]


class Retrain(Answer, frozen=True, kw_only=True):
    """The result of the last retrain, or the progress of the running one."""

    status: Annotated[
        str,
        Meta(
            description="running, published, refused, failed, interrupted or died",
            examples=["running"],
        ),
    ]
    step: Annotated[
        str,
        Meta(
            description="snapshot, dataset, tune, fit, evaluate, gate, publish or prune",
            examples=["fit"],
        ),
    ]
    progress: Annotated[str | None, Meta(examples=["sweep 12 of 20"])]
    started: Annotated[str, Meta(examples=["2026-11-22T09:58:00+00:00"])]
    at: Annotated[str, Meta(description="time of this record")]
    seconds: Annotated[float, Meta(description="since the start")]
    holder: Annotated[
        str, Meta(description="host:pid:id of the process", examples=["trainer-1:7:3f2a9c01"])
    ]
    requested_by: Annotated[str | None, Meta(examples=["schedule"])]
    reason: str | None
    request: Annotated[
        str | None, Meta(description="token of the request", examples=["retrain-requests:2:17"])
    ]
    version: Annotated[
        str | None, Meta(description="the version that it published", examples=[VERSION])
    ]
    error: Annotated[str | None, Meta(description="why it was refused or failed")]
    gate: Annotated[GateVerdict | None, Meta(description="null before the gate has decided")]


class Router(Answer, frozen=True, kw_only=True):
    """The thresholds by which this process routes, and why these apply."""

    mode: Annotated[str, Meta(description="ROUTER: fixed or auto", examples=["fixed"])]
    cold_start_threshold: Annotated[
        int, Meta(description="interactions from which ALS answers", examples=[5])
    ]
    warm_user_threshold: Annotated[
        int,
        Meta(
            description="interactions from which the ensemble answers; 1000000 for never",
            examples=[20],
        ),
    ]
    why: Annotated[str, Meta(examples=["ROUTER=fixed"])]


class Models(Answer, frozen=True, kw_only=True):
    """Every published version, newest first, and the last retrain."""

    live: Annotated[
        str | None, Meta(description="the version that the pointer names", examples=[VERSION])
    ]
    serving: Annotated[
        str | None,
        Meta(description="the version that this process answers from", examples=[VERSION]),
    ]
    summary: Annotated[
        str,
        Meta(
            description=(
                "what users get from `serving` beside the best engine by segment, and the one "
                "setting that changes it"
            ),
            examples=[SUMMARY],
        ),
    ]
    router: Router
    versions: list[ModelSummary]
    retrain: Annotated[
        Retrain | None,
        Meta(description="null before the first, or while Redis is away (`degraded`)"),
    ]
    degraded: bool


class Model(Answer, frozen=True, kw_only=True):
    """The manifest of one version; docs/bundle.md describes it."""

    version: Annotated[str, Meta(examples=[VERSION])]
    live: bool
    manifest: dict[str, Any]


class Difference(Answer, frozen=True, kw_only=True):
    """The differences of two manifests: dotted name -> both values, null for an absent field."""

    a: str
    b: str
    differences: Annotated[
        dict[str, list[Any]], Meta(examples=[{"settings.als.factors": [64, 128]}])
    ]


class Promoted(Answer, frozen=True, kw_only=True):
    """The version that is live now."""

    live: Annotated[str, Meta(examples=[VERSION])]
    was: Annotated[
        str | None,
        Meta(description="the version that was live before", examples=["2026-11-15T03-00-00Z"]),
    ]


class RetrainRequested(Answer, frozen=True, kw_only=True):
    """The request is in the log: a training worker runs it, GET /api/models shows its progress."""

    token: Annotated[
        str, Meta(description="topic:partition:offset", examples=["retrain-requests:2:17"])
    ]
