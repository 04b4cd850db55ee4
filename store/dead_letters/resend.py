"""Makes the message that replaces a dead letter, and refuses one that may not be sent again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from core import codec
from core.contract.tolerance import INTERACTION, ITEM, USER
from core.deletions import IdHasher, Kind
from core.errors import BadEvent
from core.settings import Settings
from store.dead_letters.corrections import Corrections, as_text, json_object
from store.dead_letters.letters import format_place, original
from store.log.dead_letters import DeadLetter
from store.state.apply import deletions
from store.state.running import Accepted

REPLAYED_FROM = "replayed_from"
"""Header of a replayed event: the place of the message that it replaces."""


def corrected(
    settings: Settings, letter: DeadLetter, corrections: Corrections
) -> tuple[bytes, bytes]:
    """Key and value of the message that replaces `letter`.

    A letter keeps its event_id; one without gets an id made of its coordinates. Raises BadEvent:
    still invalid; LogUnavailable.
    """
    if letter.topic not in (
        settings.interactions_topic,
        settings.items_topic,
        settings.users_topic,
    ):
        raise BadEvent(
            "not_replayable",
            f"the topic {letter.topic} is between processes of Eddyline, which send it again "
            "where it is due; only events, items and users are replayed",
        )
    edit = corrections.edits.get(letter.coordinates)
    value = edit if edit is not None else original(settings, letter)
    if letter.topic == settings.interactions_topic:
        value = corrections.apply(
            value or b"", {"event_id": f"replay:{format_place(letter.coordinates)}"}
        )
        value = corrections.rewrite(value, INTERACTION, settings.tolerance, time.time())
        event = codec.decode_interaction(value, time.time(), settings.use_cases)
        return event.user_id.encode(), value
    if value is None:
        raise BadEvent("empty", "the message is a deletion; send it again if it is still due")
    value = corrections.apply(value, {})
    if letter.topic == settings.items_topic:
        value = corrections.rewrite(value, ITEM, settings.tolerance, time.time())
        return codec.decode_item(value, time.time()).item_id.encode(), value
    value = corrections.rewrite(value, USER, settings.tolerance, time.time())
    return codec.decode_user(value, time.time()).user_id.encode(), value


class _Names(msgspec.Struct, frozen=True):
    event_type: str
    use_case: str | None = None


def check_accepted(
    settings: Settings, accepted: Accepted | None, letter: DeadLetter, value: bytes
) -> None:
    """Check that ingest knows the names in `value`, the message to send.

    It may have been started with another configuration than this process. `accepted`: what it
    knows. Raises BadEvent: it would refuse the message again.
    """
    if accepted is None or letter.topic != settings.interactions_topic:
        return
    event = msgspec.json.decode(value, type=_Names)
    if event.event_type not in accepted.event_types:
        raise BadEvent(
            "unknown_event_type", f"the running ingest knows no event_type {event.event_type!r}"
        )
    if event.use_case is not None and event.use_case not in accepted.use_cases:
        raise BadEvent(
            "unknown_use_case", f"the running ingest knows no use_case {event.use_case!r}"
        )


def kind_of(settings: Settings, letter: DeadLetter) -> Kind:
    """Whether a letter is about an item or a user."""
    return "item" if letter.topic == settings.items_topic else "user"


def ids_of(letter: DeadLetter, kind: Kind, key: bytes) -> list[str]:
    """The ids whose deletion counts: `key` of the message to send, and those in the letter."""
    ids = [key.decode()]
    with suppress(BadEvent):  # the letter's key need not be an id
        ids.append(codec.decode_id(letter.key))
    fields = json_object(letter.value or b"") or {}
    value = as_text(fields.get(f"{kind}_id"))
    if isinstance(value, str):
        ids.append(value)
    return list(dict.fromkeys(ids))


def refuse_deleted(
    client: Any, hasher: IdHasher, letter: DeadLetter, kind: Kind, ids: Sequence[str]
) -> None:
    """Refuse a letter that is older than the deletion of one of `ids`: sent again it would count.

    Redis must have every deletion in the log. Raises BadEvent (`deleted`), StoreUnavailable.
    """
    digests = [hasher(kind, entity_id) for entity_id in ids]
    for place in deletions.lookup(client, kind, digests):
        if place is not None and letter.broker_time <= place.time:
            when = datetime.fromtimestamp(place.time, UTC).isoformat(timespec="seconds")
            raise BadEvent(
                "deleted",
                f"its {kind} was deleted at {when}, after the message: sent again it would "
                f"count as new",
            )
