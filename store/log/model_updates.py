"""Encodes, decodes and sends hints: messages on MODEL_UPDATES that name changed users and items.

A message is a JSON list of [user id, item id], one pair for each event. Hints of one partition of
the log go to one partition here, in order. Ingest does not wait for their delivery: when a hint is
lost, a reader folds in the vector that stayed stale.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as KafkaProducer

from core.contract import problems
from core.errors import BadEvent
from core.settings import Settings
from store.log.client import client_config
from store.log.client_events import IDLE_POLL_S
from store.state.apply.batches import Event

Pair = tuple[str, str]
"""User id, item id."""

GATHER_EVENTS = 500
"""Pairs in one message: its cost for the live worker hardly depends on their number."""
GATHER_S = 0.05
"""Seconds that pairs wait for more: at most about 20 messages per second and partition."""
_QUEUED = 2_000
"""Messages, of a million events, that wait for an unreachable broker; further ones are dropped."""
_METADATA_S = 1.0
"""Seconds that the first message waits for the topic's metadata; the broker has just delivered
events, so it is reachable.
"""

encode: Callable[[Sequence[Pair]], bytes] = msgspec.json.Encoder().encode
_pairs = msgspec.json.Decoder(list[Pair])


def decode(value: bytes | None) -> list[Pair]:
    """The pairs of one message. Raises BadEvent."""
    try:
        return _pairs.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        code = "bad_field" if isinstance(error, msgspec.ValidationError) else "not_json"
        raise BadEvent(code, problems.in_words(error, value or b"", "hint")) from None


def connect(settings: Settings) -> KafkaProducer:
    """A client that sends hints."""
    return KafkaProducer(
        client_config(settings)
        | {
            "linger.ms": 0,  # `Hints` gathers
            "compression.type": "lz4",
            "message.timeout.ms": 10_000,
            "queue.buffering.max.messages": _QUEUED,
        }
    )


class Hints:
    """Gathers the users and items of applied events and sends them.

    Never waits and never raises: messages that the broker does not accept are counted by `lost`.
    For one thread.
    """

    def __init__(self, settings: Settings, lost: Callable[[int], None]) -> None:
        """`lost` is called with the number of messages that were dropped."""
        self._topic, self._settings, self._lost = settings.model_updates_topic, settings, lost
        self._gathered: dict[int, list[Pair]] = {}
        self._since = 0.0
        self._producer: KafkaProducer | None = None
        self._polled_at = 0.0  # time.monotonic()
        self._partitions = 0

    def add(self, partition: int, events: Sequence[Event]) -> None:
        """Add the pairs of applied `events` of a partition.

        Sends all pairs after GATHER_EVENTS or GATHER_S.
        """
        if not events:
            return
        now = time.monotonic()
        if not self._gathered:
            self._since = now
        pairs = self._gathered.setdefault(partition, [])
        pairs += [(event.interaction.user_id, event.interaction.item_id) for event in events]
        if len(pairs) >= GATHER_EVENTS or now - self._since >= GATHER_S:
            self.flush()

    def due_in(self) -> float | None:
        """Seconds until `flush` should be called; None before the first pair."""
        now = time.monotonic()
        if self._gathered:
            return max(0.0, self._since + GATHER_S - now)
        return None if self._producer is None else max(0.0, self._polled_at + IDLE_POLL_S - now)

    def flush(self) -> None:
        """Pass the gathered pairs to the client, which sends them from its own thread, and take
        what it reports.
        """
        gathered, self._gathered = self._gathered, {}
        self._polled_at = time.monotonic()
        try:
            producer = self._connected()
            for partition, pairs in gathered.items():
                for start in range(0, len(pairs), GATHER_EVENTS):
                    value = encode(pairs[start : start + GATHER_EVENTS])
                    producer.produce(
                        self._topic,
                        value,
                        str(partition),
                        partition % self._partitions,
                        on_delivery=self._delivered,
                    )
            producer.poll(0)
        except (BufferError, KafkaException):
            self._lost(len(gathered))

    def close(self) -> None:
        """Send the gathered pairs, and wait up to a second for the broker."""
        if self._gathered:
            self.flush()
        if self._producer is not None:
            self._lost(self._producer.flush(1.0))

    def _connected(self) -> KafkaProducer:
        if self._producer is None:
            producer = connect(self._settings)
            self._partitions = len(
                producer.list_topics(self._topic, timeout=_METADATA_S)
                .topics[self._topic]
                .partitions
            )
            if not self._partitions:
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
            self._producer = producer
        return self._producer

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._lost(1)
