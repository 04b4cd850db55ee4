"""The bodies that clients send, as the OpenAPI document describes them.

core.codec decodes events, items and users by the contract of the log; docs/event-contract.md is the
whole of it.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, field

from api.schemas.document import Body

DayAndTime = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
TIME = "seconds since 1970 (UTC), or ISO 8601 text with day and time (UTC without an offset)"


class Event(Body, frozen=True, kw_only=True):
    """One interaction; docs/event-contract.md is the whole contract."""

    event_id: Annotated[
        str,
        Meta(
            description="chosen by the sender; an event that is sent twice counts once",
            examples=["0f3b8c5e-6f0a-4f53-9f0e-2a4cf6f3a1d7"],
        ),
    ]
    user_id: Annotated[str, Meta(examples=["42"])]
    item_id: Annotated[str, Meta(examples=["startup-9"])]
    event_type: Annotated[str, Meta(examples=["like"])]
    timestamp: Annotated[
        float | DayAndTime, Meta(description=TIME, examples=[1795341600.0, "2026-11-22T10:00:00Z"])
    ]
    value: Annotated[
        float | None, Meta(description="scales the event type's weight, as a rating does")
    ] = None
    use_case: Annotated[str | None, Meta(examples=["developer_startup"])] = None
    context: dict[str, Any] | None = None
    recommendation_id: str | None = None
    schema_version: int = 1


class Item(Body, frozen=True, kw_only=True):
    """A catalogue entry."""

    item_id: Annotated[
        str | None,
        Meta(description="may be left out: it is in the path", examples=["startup-9"]),
    ] = None
    item_type: Annotated[str, Meta(examples=["startup"])]
    title: Annotated[str | None, Meta(examples=["Ledgerly"])] = None
    categories: Annotated[list[str], Meta(examples=[["fintech"]])] = field(default_factory=list)
    tags: Annotated[list[str], Meta(examples=[["python", "kafka"]])] = field(default_factory=list)
    text: Annotated[str | None, Meta(examples=["Books that close themselves."])] = None
    attributes: Annotated[dict[str, Any], Meta(examples=[{"stage": "seed", "team_size": 7}])] = (
        field(default_factory=dict)
    )
    available: bool = True
    created_at: Annotated[float | None, Meta(description="seconds since 1970 (UTC)")] = None


class NewItem(Item, frozen=True, kw_only=True):
    """A catalogue entry as it is written. It replaces the whole entry before it."""

    created_at: Annotated[float | DayAndTime | None, Meta(description=TIME)] = None  # type: ignore[assignment]


class User(Body, frozen=True, kw_only=True, omit_defaults=True):
    """What a user declares. It replaces the whole declaration before it."""

    user_id: Annotated[
        str | None, Meta(description="may be left out: it is in the path", examples=["42"])
    ] = None
    roles: Annotated[list[str], Meta(examples=[["developer"]])] = field(default_factory=list)
    interests: Annotated[list[str], Meta(examples=[["fintech", "python"]])] = field(
        default_factory=list
    )
    attributes: dict[str, Any] = field(default_factory=dict)


class ItemChange(Body, frozen=True, kw_only=True):
    """Fields of a catalogue entry to change; null removes one, all others stay.

    Attributes are merged by name.
    """

    title: str | None = None
    item_type: str | None = None
    categories: list[str] | None = None
    tags: list[str] | None = None
    text: str | None = None
    attributes: Annotated[
        dict[str, Any] | None, Meta(examples=[{"stage": "growth", "team_size": None}])
    ] = None
    available: Annotated[
        bool | None, Meta(description="false: the item is in no answer", examples=[False])
    ] = None
    created_at: float | DayAndTime | None = None


class UserChange(Body, frozen=True, kw_only=True):
    """Fields of a declaration to change; null removes one, all others stay.

    Attributes are merged by name.
    """

    roles: list[str] | None = None
    interests: Annotated[list[str] | None, Meta(examples=[["health"]])] = None
    attributes: dict[str, Any] | None = None


class RetrainRequest(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a retrain is requested."""

    reason: Annotated[
        str, Meta(examples=["new catalogue"], extra_json_schema={"maxLength": 500})
    ] = ""
