"""The answers and bodies of the routes about dead letters."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from api.schemas.answers import Answer
from api.schemas.document import Body
from core.contract.times import is_plausible
from store.dead_letters.letters import format_place
from store.log.dead_letters import DeadLetter

PAGE, MAX_PAGE = 50, 200
"""Letters in one page: by default, and at most."""
_PLACE = Meta(
    description="topic:partition:offset of the message", examples=["interactions:0:182734"]
)
_TOKEN = Meta(description="topic:partition:offset of the message that was sent again")


class DeadLetterLine(Answer, frozen=True, kw_only=True):
    """One message that is no valid event, in a list."""

    place: Annotated[str, _PLACE]
    code: Annotated[str, Meta(examples=["bad_timestamp"])]
    reason: Annotated[str, Meta(examples=["timestamp 1795341600000 is in milliseconds"])]
    at: Annotated[
        float,
        Meta(description="when the broker stored the message, in seconds since 1970; 0: unknown"),
    ]
    bytes: Annotated[int, Meta(description="length of the message", examples=[212])]


class DeadLetterPage(Answer, frozen=True, kw_only=True):
    """Dead letters that wait, newest first."""

    letters: list[DeadLetterLine]
    cursor: Annotated[str | None, Meta(description="for the next page; null: this was the last")]
    waiting: Annotated[int, Meta(description="letters that are not replayed", examples=[3])]
    replayed: Annotated[int, Meta(description="letters that were replayed", examples=[1])]
    codes: Annotated[
        dict[str, int],
        Meta(description="waiting letters by code", examples=[{"bad_timestamp": 3}]),
    ]
    complete: Annotated[
        bool,
        Meta(description="false: the server has not read the whole topic yet; ask again"),
    ]


class DeadLetterAnswer(Answer, frozen=True, kw_only=True):
    """One dead letter with its message."""

    place: Annotated[str, _PLACE]
    code: str
    reason: str
    at: float
    bytes: int
    truncated: Annotated[
        bool,
        Meta(description="true: `message` is only the beginning; a replay reads the whole again"),
    ]
    key: str | None
    message: Annotated[
        str | None,
        Meta(description="as text; bytes that are not UTF-8 as `\\xff`; null: it had no value"),
    ]
    replayed_to: Annotated[str | None, _TOKEN]


class Replay(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to replay a dead letter."""

    message: Annotated[
        dict[str, Any] | None,
        Meta(description="the whole new message; null: the message as it is"),
    ] = None
    dry_run: Annotated[bool, Meta(description="true: check only, send nothing")] = False


class Replayed(Answer, frozen=True, kw_only=True):
    """A dead letter was sent again, or would be."""

    place: Annotated[str, _PLACE]
    token: Annotated[str | None, _TOKEN, Meta(description="null with `dry_run`")]
    message: Annotated[str, Meta(description="the message that was checked, as text")]


def line(letter: DeadLetter) -> DeadLetterLine:
    """A letter in a list."""
    return DeadLetterLine(
        place=format_place(letter.coordinates),
        code=letter.code,
        reason=letter.reason,
        at=letter.broker_time if is_plausible(letter.broker_time) else 0.0,
        bytes=letter.size,
    )


def text(content: bytes | None) -> str | None:
    """Bytes as text that a person can read."""
    return None if content is None else content.decode("utf-8", "backslashreplace")


LIST_PARAMETERS = [
    {
        "name": "code",
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "only letters with this code",
    },
    {
        "name": "cursor",
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "`cursor` of the page before; without it, the newest",
    },
    {
        "name": "limit",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
        "description": "letters in the page",
    },
]
