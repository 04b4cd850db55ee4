"""Publishes events, items and users to Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from eddyline_client.contract import check_id, encode_event, encode_item, encode_user
from eddyline_client.delivery import DeliveryQueue
from eddyline_client.errors import InvalidInput, Unavailable
from eddyline_client.types import Event, Item, User

_DEFAULTS = {
    "compression.type": "lz4",
    # bounds the memory of the queue, whatever the size of the events
    "queue.buffering.max.kbytes": 128 * 1024,
    "reconnect.backoff.max.ms": 1000,  # reconnects to a restarted broker within a second
}
_RESERVED = {
    "bootstrap.servers",
    "logger",
    "error_cb",
    "stats_cb",
    "statistics.interval.ms",
    "request.required.acks",
    "max.in.flight",
    "delivery.timeout.ms",
    "queue.buffering.max.ms",
    "retries",
    "message.send.max.retries",
}
"""Other names of settings that are arguments, and settings that would weaken idempotence."""


class EventProducer:
    """Publishes to Kafka: idempotent, acknowledged by all replicas, each user's events in order.

    Thread-safe.

        with EventProducer("localhost:9092") as producer:
            producer.send(Event(user_id="42", item_id="startup-9", event_type="like"))

    Messages are sent in batches by a thread of this object; `send` returns before they are
    delivered. A message that Kafka does not acknowledge within `delivery_timeout_s` raises
    DeliveryFailed at the next `send`, `flush` or `close` (the end of the block). When Kafka goes
    away and comes back, the logger `eddyline_client` has one warning each. Keep one producer for
    the life of the process.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        interactions_topic: str = "interactions",
        items_topic: str = "items",
        users_topic: str = "users",
        config: Mapping[str, Any] | None = None,
        max_queued: int = 100_000,
        linger_s: float = 0.005,
        delivery_timeout_s: float = 30.0,
        connect_timeout_s: float = 4.0,
    ) -> None:
        """Connects at once.

        `config`: more librdkafka settings, such as `security.protocol` and `sasl.password`, except
        those that the guarantees depend on. `max_queued`: messages that may wait for delivery;
        `send` blocks while there are more. `linger_s`: seconds that a message waits for others of
        its batch. `delivery_timeout_s`: seconds after which a message has failed, retries included.
        Raises Unavailable when no broker answers within `connect_timeout_s`;
        InvalidInput; MissingDependency.
        """
        fixed = {
            "enable.idempotence": True,
            "acks": "all",
            # with more, a broker may drop the first messages of a new partition, and the library
            # then reports them as acknowledged (KAFKA-15591)
            "max.in.flight.requests.per.connection": 1,
            # as Kafka's Java clients: all backends agree on a user's partition
            "partitioner": "murmur2_random",
            "linger.ms": linger_s * 1000,
            "message.timeout.ms": int(delivery_timeout_s * 1000),
            "queue.buffering.max.messages": max_queued,
        }
        if clash := sorted((fixed.keys() | _RESERVED) & (config or {}).keys()):
            raise InvalidInput(
                "invalid_parameter",
                f"config may not set {', '.join(clash)}: the guarantees depend on them",
            )
        self._servers, self._delivery_timeout_s = bootstrap_servers, delivery_timeout_s
        self._interactions, self._items, self._users = interactions_topic, items_topic, users_topic
        self._queue = DeliveryQueue(
            bootstrap_servers, _DEFAULTS | dict(config or {}) | fixed, connect_timeout_s
        )

    def send(self, *events: Event) -> None:
        """Queue events for delivery; blocks while the queue is full.

        Raises InvalidInput before anything is queued; DeliveryFailed when earlier messages failed:
        send those again, and `events` too, of which a part may be queued; Unavailable when the
        topic does not exist, or when no broker answers after a delivery timed out.
        """
        for event, data in [(event, encode_event(event)) for event in events]:
            self._queue.put(self._interactions, event.user_id, data, event)

    def upsert_item(self, item: Item) -> None:
        """Queue a catalogue entry. Raises as `send`."""
        self._queue.put(self._items, item.item_id, encode_item(item), item)

    def delete_item(self, item_id: str) -> None:
        """Queue the deletion of an item. Raises as `send`."""
        check_id("item_id", item_id)
        self._queue.put(self._items, item_id, None, item_id)

    def upsert_user(self, user: User) -> None:
        """Queue what a user declares. Raises as `send`."""
        self._queue.put(self._users, user.user_id, encode_user(user), user)

    def delete_user(self, user_id: str) -> None:
        """Queue the deletion of a user and everything known about them. Raises as `send`."""
        check_id("user_id", user_id)
        self._queue.put(self._users, user_id, None, user_id)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every message is acknowledged.

        Raises DeliveryFailed when some failed; Unavailable when some still wait after `timeout_s`
        (by default as long as a delivery may take).
        """
        delivered = self._queue.wait_until_empty(
            self._delivery_timeout_s + 1 if timeout_s is None else timeout_s
        )
        self._queue.raise_failures()
        if not delivered:
            raise Unavailable(
                f"Kafka at {self._servers}: {len(self)} messages still wait for delivery "
                f"after the time-out"
            )

    def close(self) -> None:
        """Wait for deliveries and stop.

        Raises DeliveryFailed as `flush`. To call it again does nothing.
        """
        self._queue.close(self._delivery_timeout_s + 1)

    def __len__(self) -> int:
        """Messages that wait for delivery."""
        return len(self._queue)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
