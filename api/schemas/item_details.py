"""The answers of the routes about one item and about finding users."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from api.schemas.answers import Answer


class Activity(Answer, frozen=True, kw_only=True):
    """Weights of an item's events by time."""

    start: Annotated[int, Meta(description="when the first part begins, in seconds since 1970")]
    seconds: Annotated[int, Meta(description="length of a part", examples=[3600])]
    weights: Annotated[
        list[float], Meta(description="by part, oldest first; the last is not over yet")
    ]


class ItemActivity(Answer, frozen=True, kw_only=True):
    """How popular an item is, and was in the last hour and week."""

    item_id: str
    popularity: Annotated[
        dict[str, float],
        Meta(
            description="by use case: 1 for the most popular item; without an item that is not "
            "among the first thousand",
            examples=[{"developer_startup": 0.25}],
        ),
    ]
    hour: Annotated[
        dict[str, Activity], Meta(description="by use case: the last hour, in parts of 5 minutes")
    ]
    week: Annotated[
        dict[str, Activity], Meta(description="by use case: the last week, in parts of an hour")
    ]


class ItemUser(Answer, frozen=True, kw_only=True):
    """A user who would like an item, by the ALS model."""

    user_id: Annotated[str, Meta(examples=["17"])]
    score: Annotated[
        float,
        Meta(description="of the item by this user's vector of the training", examples=[0.83]),
    ]
    shown_at: Annotated[
        int | None,
        Meta(
            description="its rank in the answer to this user now; null: not among the first "
            "`API_MAX_LIMIT`",
            examples=[2],
        ),
    ]


class ItemUsers(Answer, frozen=True, kw_only=True):
    """Users who would like an item and have no event with it, best first."""

    item_id: str
    model_version: str | None
    cause: Annotated[str | None, Meta(description="why there are none")]
    degraded: bool
    users: list[ItemUser]


class UserMatches(Answer, frozen=True, kw_only=True):
    """Users whose id contains a text, among those that the live bundle was trained on."""

    model_version: str | None
    cause: Annotated[str | None, Meta(description="why there are none")]
    users: Annotated[list[str], Meta(examples=[["42", "420"]])]
