"""Reads from the query string how a user's history would be otherwise, and applies it to a copy.

`event=like:startup-9` adds an event now, `without=startup-3` removes the events of an item.
Nothing is stored.
"""

from __future__ import annotations

import time
from urllib.parse import unquote_to_bytes

import msgspec

from api.errors import invalid
from core.codec import check_id
from core.errors import BadEvent
from core.types import HistoryEvent, UserState
from core.use_cases import UseCases

MOST = 50
"""Changes in one request."""
_NAMES = {b"event", b"without"}


class HistoryChanges(msgspec.Struct, frozen=True):
    """Events to add, as (event type, item), and items whose events are removed."""

    added: tuple[tuple[str, str], ...] = ()
    removed: frozenset[str] = frozenset()

    def apply(self, state: UserState) -> UserState:
        """The state as it would be: without its stored ALS vector, which is of another history."""
        if not self.added and not self.removed:
            return state
        now, counts = int(time.time()), dict(state.counts)
        history = [event for event in state.history if event.item_id not in self.removed]
        events = state.events - len(state.history) + len(history) + len(self.added)
        for event in state.history:
            if event.item_id in self.removed and counts.get(event.event_type, 0):
                counts[event.event_type] -= 1
        for event_type, item_id in self.added:
            counts[event_type] = counts.get(event_type, 0) + 1
            history.append(HistoryEvent(now, event_type, item_id))
        return msgspec.structs.replace(
            state, events=max(0, events), counts=counts, history=history, als=None
        )


def split(query_string: bytes, use_cases: UseCases) -> tuple[bytes, HistoryChanges]:
    """The query string without the changes, and the changes. Raises ApiError 422."""
    rest: list[bytes] = []
    added: list[tuple[str, str]] = []
    removed: set[str] = set()
    for pair in query_string.split(b"&"):
        name, _, value = pair.partition(b"=")
        name = unquote_to_bytes(name)
        if name not in _NAMES:
            rest.append(pair)
            continue
        text = unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8", "replace")
        if name == b"without":
            removed.add(_checked("without", text))
            continue
        event_type, _, item_id = text.partition(":")
        if event_type not in use_cases.event_types:
            raise invalid(
                f"event={text[:100]!r} is not of the form type:item, such as like:startup-9, with "
                f"a type of {', '.join(use_cases.event_types)}"
            )
        added.append((event_type, _checked("event", item_id)))
    if len(added) + len(removed) > MOST:
        raise invalid(f"event and without occur more than {MOST} times")
    return b"&".join(rest), HistoryChanges(tuple(added), frozenset(removed))


def _checked(name: str, item_id: str) -> str:
    try:
        check_id(name, item_id)
    except BadEvent as error:
        raise invalid(str(error)) from None
    return item_id


def _parameter(name: str, description: str, example: str) -> dict[str, object]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "schema": {"type": "array", "items": {"type": "string"}},
        "description": f"{description}; may be repeated, nothing is stored",
        "example": [example],
    }


PARAMETERS = [
    _parameter("event", "what if the user also did this now: `type:item`", "like:startup-9"),
    _parameter("without", "what if the user had no events with this item", "startup-3"),
]
