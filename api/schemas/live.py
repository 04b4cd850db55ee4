"""What happens now, as `GET /api/live` sends it once a second."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from api.schemas.answers import Answer, Missing


class PartitionLag(Answer, frozen=True, kw_only=True):
    """How far the state is behind the log in one partition."""

    topic: Annotated[str, Meta(examples=["interactions"])]
    partition: Annotated[int, Meta(examples=[0])]
    position: Annotated[int, Meta(description="first offset that is not in the state")]
    end: Annotated[int | None, Meta(description="of the log; null while the broker is away")]
    lag: Annotated[int | None, Meta(description="messages that are not in the state yet")]


class Events(Answer, frozen=True, kw_only=True):
    """Interactions on their way into the state."""

    per_second: Annotated[float | None, Meta(description="messages applied, of the last seconds")]
    latest_age_s: Annotated[
        float | None,
        Meta(description="since the broker received the latest event that is in the state"),
    ]
    lag: Annotated[int | None, Meta(description="of the interactions, all partitions together")]
    partitions: list[PartitionLag]


class Probe(Answer, frozen=True, kw_only=True):
    """The time from a write to an answer that has it, as this process measures it itself.

    It publishes the profile of a reserved user, waits until ingest has applied it, reads that user
    and makes an answer. Times of the last minute.
    """

    off: Annotated[str | None, Meta(description="why this process does not measure")]
    p50_ms: float | None
    p99_ms: float | None
    latest_ms: float | None
    count: int
    lost: Annotated[int, Meta(description="probes that were in no answer within API_TIMEOUT_S")]


class Answers(Answer, frozen=True, kw_only=True):
    """Recommendations that were read, all processes of this server together.

    Times and shares are of the last minute at most.
    """

    per_second: float | None
    p50_ms: float | None
    p99_ms: float | None
    by_engine: Annotated[dict[str, int], Meta(examples=[{"als": 812, "popular": 40}])]
    degraded_share: Annotated[float | None, Meta(description="of the personal answers")]
    stale_share: Annotated[
        float | None, Meta(description="of the reads with `after`: those that lack the write")
    ]
    seconds: Annotated[float, Meta(description="that the numbers above cover")]


class RedisMemory(Answer, frozen=True, kw_only=True):
    """The memory of Redis, and when it is full at the growth of the last week."""

    used_bytes: int
    limit_bytes: Annotated[int | None, Meta(description="maxmemory; null: none")]
    users: int | None
    growth_bytes_per_day: float | None
    days_left: Annotated[float | None, Meta(description="null: no limit, or no growth")]


class Process(Answer, frozen=True, kw_only=True):
    """A process beside the API: `ingest`, `retrain` and `rebuild` as Redis knows them, `archive`,
    `live` and `trainer` as the broker does (the embedded one lists none).
    """

    kind: Annotated[str, Meta(examples=["ingest"])]
    name: Annotated[str, Meta(examples=["host-1:812:3f2a9c01"])]


class DeadLetters(Answer, frozen=True, kw_only=True):
    """Messages that were no valid event, of the last day."""

    total: int
    by_code: dict[str, int]


class LiveNumbers(Answer, frozen=True, kw_only=True):
    """One second of this server. A part is null while what it is read from is away."""

    at: Annotated[float, Meta(description="seconds since 1970")]
    model_version: str | None
    catalogue_items: int
    missing: list[Missing]
    events: Events | None
    probe: Probe
    answers: Answers
    dead_letters: DeadLetters | None
    redis: RedisMemory | None
    processes: list[Process] | None
    listeners: Annotated[int, Meta(description="of this stream, at this process")]
