"""What every peer computes: events per user and type, and the user's last 50 events.

The decoding and the update are the same code for all, so that what differs is the processor
around them.
"""

from __future__ import annotations

import msgspec

HISTORY = 50


class Event(msgspec.Struct):
    """The fields of an interaction that the counts need; the others are skipped."""

    user_id: str
    item_id: str
    event_type: str
    timestamp: float


class State(msgspec.Struct):
    """One user: events by type, and (time in whole seconds, type, item) of the latest, newest
    last.
    """

    counts: dict[str, int] = {}
    history: list[tuple[int, str, str]] = []

    def add(self, event: Event) -> None:
        """Count one event."""
        kind = event.event_type
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.history.append((int(event.timestamp), kind, event.item_id))
        if len(self.history) > HISTORY:
            del self.history[0]


decode_event = msgspec.json.Decoder(Event).decode
decode_state = msgspec.msgpack.Decoder(State).decode
encode_state = msgspec.msgpack.Encoder().encode
