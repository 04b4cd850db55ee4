"""Converts rows to the messages that a backend would have sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from core import codec
from core.errors import BadEvent
from core.settings import Settings
from core.types import Interaction
from store.tables import reader as tables
from store.tables.event_ids import EventIds
from store.tables.options import FIELDS
from store.tables.reader import Batch, Reader
from store.tables.rows import Reject
from streams import times
from streams.importers.plan import Plan
from streams.importers.summary import Tally

_NO_CONTEXT = Interaction("", "", "", "", 0.0).context
"""The default object itself: the encoder leaves out only this one."""

Message = tuple[bytes, bytes, float]
"""Key, value, and the time of the event in seconds since 1970; 0 for items and users."""


class Messages:
    """The messages of one source, in the order of its rows. `tally` counts what became of them."""

    def __init__(self, settings: Settings, plan: Plan, source: Reader, now: float) -> None:
        """`now`: seconds since 1970, by which the times of events are checked."""
        self._settings, self._plan, self._reader, self._now = settings, plan, source, now
        constants = source.mapping.constants
        self._default_timestamp = (
            times.parse(constants["timestamp"])
            if "timestamp" in constants
            else plan.default_timestamp
        )
        self._ids = EventIds(settings.dedup_window) if self._has_event_ids else None
        self.tally = Tally()

    @property
    def _has_event_ids(self) -> bool:
        return "event_id" in self._reader.mapping.columns

    def chunks(self, on_reject: Callable[[Reject], None]) -> Iterator[list[Message]]:
        """The messages of each batch of rows. Raises SourceFailed."""
        make = self._events if self._reader.mapping.kind == "interactions" else self._entries
        left = self._plan.limit

        def reject(row: Reject) -> None:
            self.tally.reject(row)
            on_reject(row)

        for batch in self._reader.batches():
            self.tally.read += batch.read
            self.tally.missing = self._reader.missing
            for row in batch.rejects:
                reject(row)
            messages = list(islice(make(batch, reject), left))
            yield messages
            if left is not None:
                left -= len(messages)
                if not left:
                    return

    def _events(self, batch: Batch, reject: Callable[[Reject], None]) -> Iterator[Message]:
        """Each event as ingest accepts it; the others are skipped or rejected.

        An event's id is made of the source's name and the row's number, or of the row's content
        where the order of rows may change. So a second import sends the same ids.
        """
        name, is_stable = self._reader.table.name, self._reader.table.has_stable_order
        min_value, skipped = self._plan.min_value, self.tally.counts
        now, use_cases = self._now, self._settings.use_cases
        nothing: Sequence[Any] = [None] * len(batch.numbers)
        columns = (batch.fields.get(field, nothing) for field in FIELDS["interactions"])
        rows = zip(batch.numbers, *columns, strict=True)
        for index, row in enumerate(rows):
            number, event_id, user_id, item_id, event_type, timestamp, value, use_case = row[:8]
            context, recommendation_id = row[8:]
            if min_value is not None and (value is None or value < min_value):
                skipped["below --min-value"] += 1
                continue
            if timestamp is None:
                timestamp = self._default_timestamp
                if timestamp is None:
                    skipped["no timestamp"] += 1
                    continue
            if event_id is None:
                row_id = (
                    number
                    if is_stable
                    else _digest(user_id, item_id, event_type, timestamp, value, use_case)
                )
                event_id = f"{name}:{row_id}"
            event = Interaction(
                event_id,
                user_id,
                item_id,
                event_type,
                timestamp,
                value,
                use_case,
                msgspec.Raw(context.encode("utf-8", "replace")) if context else _NO_CONTEXT,
                recommendation_id,
            )
            try:
                codec.check_interaction(event, now, use_cases)
                encoded = codec.encode_json(event)
                if context:
                    # only the encoded event shows whether the context is JSON
                    codec.decode_interaction(encoded, now, use_cases)
            except BadEvent as error:
                reject(batch.reject(index, error))
                continue
            if self._ids is not None and self._ids.is_repeated(user_id, event_id):
                skipped["duplicates"] += 1
                continue
            yield user_id.encode(), encoded, timestamp

    def _entries(self, batch: Batch, reject: Callable[[Reject], None]) -> Iterator[Message]:
        if self._reader.mapping.kind == "items":
            for item in tables.items(batch):
                if isinstance(item, Reject):
                    reject(item)
                else:
                    yield item.item_id.encode(), codec.encode_json(item), 0.0
            return
        for user in tables.users(batch):
            if isinstance(user, Reject):
                reject(user)
            else:
                yield user.user_id.encode(), codec.encode_json(user), 0.0


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
