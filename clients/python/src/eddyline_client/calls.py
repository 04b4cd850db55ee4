"""Makes the request of each route from its arguments, without sending it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack
from urllib.parse import quote, urlencode

from eddyline_client.contract import check_id, encode_change, encode_item, encode_user
from eddyline_client.errors import InvalidInput
from eddyline_client.types import (
    Accepted,
    EntryResults,
    EventResults,
    Explanation,
    Item,
    ItemAnswer,
    ItemList,
    ItemPage,
    Preview,
    Recommendations,
    SimilarUsers,
    User,
    UserAnswer,
)

Texts = str | Sequence[str]
AttributeValue = str | int | float | bool | Sequence[str]
_Answer = TypeVar("_Answer")


class ItemOptions(TypedDict, total=False):
    """Which items an answer may contain.

    `limit`: 1 to the server's maximum, 10 by default. `category`, `item_type`: at least one of
    these. `exclude`: not these items. `attr`: filters by attribute; `{"stage": "seed"}` equals,
    `{"stage": ["seed", "a"]}` one of, `{"team_size.min": 3, "team_size.max": 20}` a range.
    `available_only`: False also allows items that are not available. `reasons`: False leaves them
    out, which saves a fifth of a read. `use_case`: name of a configured use case.
    """

    limit: int
    category: Texts
    item_type: Texts
    exclude: Texts
    available_only: bool
    reasons: bool
    attr: Mapping[str, AttributeValue]
    use_case: str


class PopularOptions(ItemOptions, total=False):
    """`window`: popularity in the last hour, day or week; without it, over all time."""

    window: Literal["hour", "day", "week"]


class PersonalOptions(ItemOptions, total=False):
    """Options of an answer to one user.

    `include_seen`: also items that the user has interacted with. `engine`: the first engine of the
    chain. `diversity`, `explore`: 0 to 1. `after`: token of a write; the answer waits for that
    write, the server's API_AFTER_S at most, and is `stale` without it.
    """

    include_seen: bool
    engine: str
    diversity: float
    explore: float
    after: str


class WhatIfOptions(PersonalOptions, total=False):
    """Options of an answer that may be for another history than the stored one.

    `event`: what if the user also did this now, each as "like:startup-9"; `without`: what if the
    user had no events with these items. Nothing is stored.
    """

    event: Sequence[str]
    without: Sequence[str]


class UserOptions(TypedDict, total=False):
    """`after`: token of a write that the answer waits for."""

    after: str


class PageOptions(TypedDict, total=False):
    """`cursor`: that of the page before. `limit`: about how many items, 1 to 1,000.

    `q`: only items with all these words, best first; 100 at most, without a cursor.
    """

    cursor: str
    limit: int
    q: str


class SimilarUserOptions(UserOptions, total=False):
    """`limit`: users in the answer, 1 to 50."""

    limit: int


@dataclass(frozen=True, slots=True)
class Call(Generic[_Answer]):
    """A request without the address of the server.

    `path` is percent-encoded, `query` a query string, `answer` the type of a successful answer.
    """

    method: str
    path: str
    answer: type[_Answer]
    query: str = ""
    body: bytes | None = None


def recommend(user_id: str, **options: Unpack[PersonalOptions]) -> Call[Recommendations]:
    """Recommendations for a user. An unknown user gets popular items."""
    return Call(
        "GET",
        f"/api/recommendations/{_segment('user_id', user_id)}",
        Recommendations,
        _query(options),
    )


def preview(user_id: str, **options: Unpack[WhatIfOptions]) -> Call[Preview]:
    """What a user would get beside what each engine alone would answer."""
    return Call("GET", f"/api/preview/{_segment('user_id', user_id)}", Preview, _query(options))


def explain(user_id: str, item_id: str, **options: Unpack[WhatIfOptions]) -> Call[Explanation]:
    """Why an item is shown to a user, or why not."""
    path = f"/api/explain/{_segment('user_id', user_id)}/{_segment('item_id', item_id)}"
    return Call("GET", path, Explanation, _query(options))


def similar_items(item_id: str, **options: Unpack[ItemOptions]) -> Call[ItemList]:
    """Items with interactions of the same users, or with similar content."""
    return Call(
        "GET", f"/api/items/{_segment('item_id', item_id)}/similar", ItemList, _query(options)
    )


def popular(**options: Unpack[PopularOptions]) -> Call[ItemList]:
    """Popular items, of all time or within a window."""
    return Call("GET", "/api/popular", ItemList, _query(options))


def similar_users(user_id: str, **options: Unpack[SimilarUserOptions]) -> Call[SimilarUsers]:
    """Users with similar interactions."""
    return Call(
        "GET", f"/api/users/{_segment('user_id', user_id)}/similar", SimilarUsers, _query(options)
    )


def user(user_id: str, **options: Unpack[UserOptions]) -> Call[UserAnswer]:
    """The stored state of a user."""
    return Call("GET", f"/api/users/{_segment('user_id', user_id)}", UserAnswer, _query(options))


def publish(events: Sequence[bytes]) -> Call[EventResults]:
    """Publish encoded events in one request."""
    return Call("POST", "/api/events", EventResults, body=_array(events))


def item(item_id: str, **options: Unpack[UserOptions]) -> Call[ItemAnswer]:
    """The catalogue entry of an item."""
    return Call("GET", f"/api/items/{_segment('item_id', item_id)}", ItemAnswer, _query(options))


def items(**options: Unpack[PageOptions]) -> Call[ItemPage]:
    """A page of the catalogue."""
    return Call("GET", "/api/items", ItemPage, _query(options))


def upsert_items(entries: Sequence[Item]) -> Call[EntryResults]:
    """Create or replace many items."""
    return Call("POST", "/api/items", EntryResults, body=_array(map(encode_item, entries)))


def upsert_users(declared: Sequence[User]) -> Call[EntryResults]:
    """Create or replace what many users declare."""
    return Call("POST", "/api/users", EntryResults, body=_array(map(encode_user, declared)))


def patch_item(item_id: str, changes: Mapping[str, Any]) -> Call[Accepted]:
    """Change some fields of an item."""
    path = f"/api/items/{_segment('item_id', item_id)}"
    return Call("PATCH", path, Accepted, body=encode_change(changes))


def patch_user(user_id: str, changes: Mapping[str, Any]) -> Call[Accepted]:
    """Change some fields of what a user declares."""
    path = f"/api/users/{_segment('user_id', user_id)}"
    return Call("PATCH", path, Accepted, body=encode_change(changes))


def upsert_item(entry: Item) -> Call[Accepted]:
    """Create or replace an item."""
    return Call(
        "PUT", f"/api/items/{_segment('item_id', entry.item_id)}", Accepted, body=encode_item(entry)
    )


def delete_item(item_id: str) -> Call[Accepted]:
    """Delete an item; an unknown one is accepted, too."""
    return Call("DELETE", f"/api/items/{_segment('item_id', item_id)}", Accepted)


def upsert_user(declared: User) -> Call[Accepted]:
    """Create or replace what a user declares."""
    return Call(
        "PUT",
        f"/api/users/{_segment('user_id', declared.user_id)}",
        Accepted,
        body=encode_user(declared),
    )


def delete_user(user_id: str) -> Call[Accepted]:
    """Delete a user; an unknown one is accepted, too."""
    return Call("DELETE", f"/api/users/{_segment('user_id', user_id)}", Accepted)


def _array(entries: Iterable[bytes]) -> bytes:
    """Encoded entries as a JSON array."""
    return b"[" + b",".join(entries) + b"]"


def _segment(name: str, identifier: str) -> str:
    """An id as one part of a path.

    `.` and `..` are encoded, too: a URL would drop them.
    """
    check_id(name, identifier)
    return quote(identifier, safe="") if identifier.strip(".") else identifier.replace(".", "%2E")


def _query(options: Mapping[str, Any]) -> str:
    """The query string; an option that is None is left out. Raises InvalidInput."""
    pairs: list[tuple[str, str]] = []
    for name, value in options.items():
        if name == "attr" and value is not None:
            for attribute, condition in value.items():
                pairs += [
                    (f"attr.{attribute}", text) for text in _texts(f"attr.{attribute}", condition)
                ]
        elif value is not None:
            pairs += [(name, text) for text in _texts(name, value)]
    return urlencode(pairs)


def _texts(name: str, value: object) -> list[str]:
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, (str, int, float)):
        return [str(value)]
    if isinstance(value, Sequence) and all(isinstance(part, str) for part in value):
        return list(value)
    raise InvalidInput(
        "invalid_parameter",
        f"{name} must be a text, a number, a truth value or a list of texts, not {value!r}",
    )
