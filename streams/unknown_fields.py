"""Counts the fields of messages that the contract does not have, which ingest ignores.

Decoding passes over such fields without a word, so a sample is decoded a second time: the first
message of each batch, and each hundredth of a large one. That costs a microsecond a batch, and in
large ones about 1% of the decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog

from core.contract.envelopes import fields_of, without_frame
from core.contract.unknown_fields import nearest_field, unknown_fields
from core.errors import BadEvent
from streams import metrics

if TYPE_CHECKING:
    from streams.ingest.messages import Message

_log = structlog.get_logger(__name__)

SAMPLED = 100
"""One message of so many is looked at."""
MOST_NAMES = 20
"""Names of a topic that are counted by themselves; all later ones count as OTHER."""
OTHER = "other"
_SHOWN = 60
"""Characters of a name that are shown."""


class UnknownFields:
    """The fields of one topic's messages, which are `kind`, that the contract does not have."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self._kind = kind
        self._names: set[str] = set()

    def sample(self, messages: Sequence[Message], decode: Callable[[Message], object]) -> None:
        """Look at a sample of `messages`; those that `decode` refuses with BadEvent do not count.

        The log names each field once, with the known one whose name is like it.
        """
        for message in messages[::SAMPLED]:
            fields = fields_of(without_frame(message.value() or b"")) or {}
            names = unknown_fields(fields, self._kind)
            if names and _is_valid(message, decode):
                for name in names:
                    self._count(message, name[:_SHOWN])

    def _count(self, message: Message, name: str) -> None:
        if name not in self._names:
            if len(self._names) == MOST_NAMES:
                name = OTHER
            else:
                self._names.add(name)
                _log.warning(
                    "unknown_field",
                    topic=message.topic(),
                    partition=message.partition(),
                    offset=message.offset(),
                    field=name,
                    nearest=nearest_field(name, self._kind),
                )
        metrics.unknown_fields.labels(message.topic(), name).inc()


def _is_valid(message: Message, decode: Callable[[Message], object]) -> bool:
    try:
        decode(message)
    except BadEvent:
        return False
    return True
