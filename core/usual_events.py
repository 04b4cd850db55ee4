"""Decodes many interactions at once, if every one of them is usual.

A usual interaction is valid as it stands, and its ids are printable ASCII without spaces. To check
that of hundreds together takes less processor time than as many calls of
`core.codec.decode_interaction`, which decides whether any other one is valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta

from core import codec
from core.contract.times import EARLIEST_S, LATEST_S, MAX_FUTURE_S
from core.types import Interaction
from core.use_cases import UseCases

_Id = Annotated[str, Meta(min_length=1, max_length=codec.MAX_ID_BYTES)]
_PRINTABLE = bytes(range(0x21, 0x7F))
"""The printable ASCII characters but the space."""


class UsualEvents:
    """Decodes usual interactions under the event types and use cases of one configuration."""

    def __init__(self, use_cases: UseCases) -> None:
        self._decode = msgspec.json.Decoder(_usual_interaction(use_cases)).decode

    def decode(
        self, values: Sequence[bytes | None], broker_times: Sequence[float]
    ) -> list[Interaction] | None:
        """The interactions in `values`, in their order; None if one of them is not usual.

        `broker_times`: for each, its record's time in Kafka, in seconds since 1970. Both hold the
        same number of elements, at least one.
        """
        if not all(values) or max(map(len, cast("Sequence[bytes]", values))) > (
            codec.MAX_EVENT_BYTES
        ):
            return None
        decode = self._decode
        try:
            events = [decode(value) for value in cast("Sequence[bytes]", values)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        ids = "".join([event.event_id + event.user_id + event.item_id for event in events])
        if not ids.isascii() or ids.encode().translate(None, _PRINTABLE):
            return None
        newest = max([event.timestamp for event in events])
        if newest > min(broker_times) + MAX_FUTURE_S or max(broker_times) + MAX_FUTURE_S > LATEST_S:
            return None
        contexts = [event.context for event in events if event.context is not codec.NO_CONTEXT]
        if any(bytes(context)[:1] not in (b"{", b"n") for context in contexts):
            return None
        return events


def _usual_interaction(use_cases: UseCases) -> type[Interaction]:
    """A type of interactions whose fields have only the values that a usual one may have.

    The strings of its Literals are made once, so they also cost less after the decoding.
    """
    event_type = Literal[tuple(use_cases.event_types)]  # type: ignore[valid-type]
    use_case = Literal[(None, *use_cases.by_name)]  # type: ignore[valid-type]
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        ("event_id", _Id),
        ("user_id", _Id),
        ("item_id", _Id),
        ("event_type", event_type),
        ("timestamp", Annotated[float, Meta(ge=EARLIEST_S)]),
        ("value", Annotated[float, Meta(ge=0, le=codec.MAX_VALUE)] | None, None),
        ("use_case", use_case, None),
        ("schema_version", Literal[codec.SCHEMA_VERSION], codec.SCHEMA_VERSION),
    ]
    made = msgspec.defstruct(
        "UsualInteraction", fields, bases=(Interaction,), frozen=True, gc=False, kw_only=True
    )
    return cast("type[Interaction]", made)
