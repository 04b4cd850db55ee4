"""Publishes events, items and users to Kafka."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from eddyline_client.contract import check_id, encode_event, encode_item, encode_user
from eddyline_client.errors import (
    DeliveryFailed,
    FailedDelivery,
    InvalidInput,
    MissingDependency,
    Unavailable,
)
from eddyline_client.types import Event, Item, User

if TYPE_CHECKING:
    import confluent_kafka

_log = logging.getLogger("eddyline_client")
_log.addHandler(logging.NullHandler())
POLL_S = 0.1
"""Seconds between two looks at what was delivered, at most."""
_DEFAULTS = {
    "compression.type": "lz4",
    # bounds the memory of the queue, whatever the size of the events
    "queue.buffering.max.kbytes": 128 * 1024,
    "reconnect.backoff.max.ms": 1000,  # a restarted broker is found within a second
}
_ALIASES = {
    "request.required.acks",
    "delivery.timeout.ms",
    "queue.buffering.max.ms",
    "retries",
    "message.send.max.retries",
}
"""Other names of settings that are arguments, and what would weaken idempotence."""
_LOOK_S = 0.005
"""Seconds between two looks at the queue while a call waits for it."""
_PURGE_S = 5.0
"""Seconds for the verdicts on messages that are dropped: they need no broker."""


class _ClientLog:
    """librdkafka's own lines, as debug: it repeats them while it retries; what matters of them is
    raised.
    """

    def log(self, level: int, message: str, *arguments: object) -> None:
        _log.debug(
            "kafka_client level=%s line=%s", level, message % arguments if arguments else message
        )


class EventProducer:
    """Publishes to Kafka: idempotent, acknowledged by all replicas, each user's events in order.
    Thread-safe.

        with EventProducer("localhost:9092") as producer:
            producer.send(Event(user_id="42", item_id="startup-9", event_type="like"))

    Messages are sent in batches by a thread of this object; `send` returns before they are
    delivered. What Kafka does not acknowledge within `delivery_timeout_s` raises DeliveryFailed at
    the next `send`, `flush` or `close` (the end of the block). Keep one producer for the life of
    the process.
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
        connect_timeout_s: float = 5.0,
    ) -> None:
        """Connects at once.

        `config`: more librdkafka settings, such as `security.protocol` and `sasl.password`; not
        those that the guarantees rest on. `max_queued`: messages that may wait for delivery; `send`
        blocks while there are more. `linger_s`: seconds that a message waits for others to travel
        with. `delivery_timeout_s`: seconds after which a message counts as failed, retries
        included. Raises Unavailable when no broker answers within `connect_timeout_s`;
        InvalidInput; MissingDependency.
        """
        try:
            import confluent_kafka  # optional: HTTP needs none of it
        except ImportError as error:
            raise MissingDependency(
                "EventProducer needs confluent-kafka: pip install 'eddyline-client[kafka]'"
            ) from error
        self._kafka = confluent_kafka
        self._servers = bootstrap_servers
        self._interactions, self._items, self._users = interactions_topic, items_topic, users_topic
        self._connect_timeout_s, self._delivery_timeout_s = connect_timeout_s, delivery_timeout_s
        fixed = {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "acks": "all",
            # as Kafka's Java clients: all backends agree on a user's partition
            "partitioner": "murmur2_random",
            "linger.ms": linger_s * 1000,
            "message.timeout.ms": int(delivery_timeout_s * 1000),
            "queue.buffering.max.messages": max_queued,
            "logger": _ClientLog(),
            "error_cb": self._on_error,
        }
        if clash := sorted((fixed.keys() | _ALIASES) & (config or {}).keys()):
            raise InvalidInput(
                "invalid_parameter",
                f"config may not set {', '.join(clash)}: the guarantees rest on them",
            )
        self._config = _DEFAULTS | dict(config or {}) | fixed
        # appended by the polling thread, emptied by callers: needs no lock
        self._failures: deque[FailedDelivery] = deque()
        self._last_error = ""
        self._timed_out = False
        self._renewal = threading.Lock()
        self._closed = threading.Event()
        self._topics: frozenset[str] = frozenset()
        self._producer = self._connect()
        self._poller = threading.Thread(target=self._poll, name="eddyline-deliveries", daemon=True)
        self._poller.start()

    def send(self, *events: Event) -> None:
        """Queue events for delivery; blocks while the queue is full.

        Raises InvalidInput before anything is queued; DeliveryFailed when earlier messages failed:
        send those again, and `events` too, of which a part may be queued; Unavailable when the
        topic does not exist, or when no broker answers after a delivery timed out.
        """
        for event, data in [(event, encode_event(event)) for event in events]:
            self._queue(self._interactions, event.user_id, data, event)

    def upsert_item(self, item: Item) -> None:
        """Queue a catalogue entry. Raises as `send`."""
        self._queue(self._items, item.item_id, encode_item(item), item)

    def delete_item(self, item_id: str) -> None:
        """Queue the deletion of an item. Raises as `send`."""
        check_id("item_id", item_id)
        self._queue(self._items, item_id, None, item_id)

    def upsert_user(self, user: User) -> None:
        """Queue what a user declares. Raises as `send`."""
        self._queue(self._users, user.user_id, encode_user(user), user)

    def delete_user(self, user_id: str) -> None:
        """Queue the deletion of a user and everything known about them. Raises as `send`."""
        check_id("user_id", user_id)
        self._queue(self._users, user_id, None, user_id)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every message is acknowledged.

        Raises DeliveryFailed when some failed; Unavailable when some still wait after `timeout_s`
        (by default as long as a delivery may take).
        """
        delivered = self._wait_until_empty(
            self._delivery_timeout_s + 1 if timeout_s is None else timeout_s
        )
        self._raise_failures()
        if not delivered:
            raise Unavailable(
                f"Kafka at {self._servers}: {len(self)} messages still wait for delivery "
                f"after the time-out"
            )

    def close(self) -> None:
        """Wait for deliveries and stop.

        Raises DeliveryFailed as `flush`. To call it again does nothing.
        """
        if self._closed.is_set():
            return
        try:
            self._wait_until_empty(self._delivery_timeout_s + 1)
            self._drop_queued()
        finally:
            self._closed.set()
            self._poller.join()
        self._raise_failures()

    def __len__(self) -> int:
        """Messages that wait for delivery."""
        return len(self._producer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self) -> confluent_kafka.Producer:
        """A producer that has reached a broker. Raises Unavailable, InvalidInput."""
        try:
            producer = self._kafka.Producer(self._config)
        except (self._kafka.KafkaException, ValueError, TypeError) as error:
            raise InvalidInput(
                "invalid_parameter", f"Kafka's client refuses its configuration: {error}"
            ) from error
        try:
            self._topics = self._list_topics(producer)
        except Unavailable:
            producer.poll(0)  # serves error_cb, which knows more than the time-out
            raise Unavailable(self._unreachable()) from None
        return producer

    def _list_topics(self, producer: confluent_kafka.Producer) -> frozenset[str]:
        """All topics: to ask for one would make a broker create it. Raises Unavailable."""
        try:
            return frozenset(producer.list_topics(timeout=self._connect_timeout_s).topics)
        except self._kafka.KafkaException as error:
            self._last_error = self._last_error or error.args[0].str()
            raise Unavailable(self._unreachable()) from error

    def _unreachable(self) -> str:
        return (
            f"Kafka at {self._servers} did not answer within {self._connect_timeout_s:g} s: "
            f"{self._last_error};"
            " is the broker up, and is the address right?"
        )

    def _queue(self, topic: str, key: str, value: bytes | None, entry: object) -> None:
        def on_delivery(
            error: confluent_kafka.KafkaError | None, _message: confluent_kafka.Message
        ) -> None:
            if error is not None:
                self._failures.append(FailedDelivery(topic, entry, error.str()))
                self._timed_out = (
                    self._timed_out or error.code() == self._kafka.KafkaError._MSG_TIMED_OUT
                )

        if self._closed.is_set():
            raise InvalidInput("closed", "this producer is closed")
        if topic not in self._topics:
            self._topics = self._list_topics(self._producer)
            if topic not in self._topics:
                raise Unavailable(
                    f"Kafka at {self._servers} has no topic {topic!r}; Eddyline's processes "
                    f"create it when they start"
                )
        while True:
            self._raise_failures()
            producer = self._producer
            if self._timed_out and not len(producer):
                self._renew(producer)
                continue
            try:
                producer.produce(topic, value=value, key=key.encode(), on_delivery=on_delivery)
                return
            except BufferError:  # the queue is full: wait for room
                self._closed.wait(_LOOK_S)
            except self._kafka.KafkaException as error:
                if error.args[0].code() == self._kafka.KafkaError._FATAL:
                    self._renew(producer)
                else:
                    raise Unavailable(
                        f"Kafka at {self._servers} cannot take a message to {topic}: "
                        f"{error.args[0].str()}"
                    ) from error

    def _renew(self, failed: confluent_kafka.Producer) -> None:
        """Replace a producer that can send nothing any more. Raises Unavailable when no broker
        answers.

        A broker that comes back without its memory does not know the id of an idempotent producer.
        librdkafka then fails for good, or retries for ever under new epochs of that id; of the
        latter only time-outs tell.
        """
        with self._renewal:
            if self._producer is failed:
                self._drop_queued()
                self._producer = self._connect()
                self._timed_out = False

    def _drop_queued(self) -> None:
        """Fail what still waits: each message gets its verdict."""
        if len(self._producer):
            self._producer.purge()
            self._wait_until_empty(_PURGE_S)

    def _wait_until_empty(self, timeout_s: float) -> bool:
        """Whether every message has its verdict within `timeout_s`.

        librdkafka's own flush would serve callbacks in this thread, and run them with an exception
        pending once the producer has failed for good.
        """
        deadline = time.monotonic() + timeout_s
        while len(self._producer):
            if time.monotonic() > deadline:
                return False
            self._closed.wait(_LOOK_S)
        return True

    def _raise_failures(self) -> None:
        failures: list[FailedDelivery] = []
        with contextlib.suppress(IndexError):  # another thread may empty it too
            while True:
                failures.append(self._failures.popleft())
        if not failures:
            return
        raise DeliveryFailed(
            f"Kafka at {self._servers} did not take {len(failures)} messages; the first, to "
            f"{failures[0].topic}:"
            f" {failures[0].reason}. Send them again (`failures` has them): a repeated "
            f"event_id counts once",
            failures,
        )

    def _on_error(self, error: confluent_kafka.KafkaError) -> None:
        self._last_error = error.str()
        _log.debug("kafka_error code=%s error=%s", error.name(), error.str())

    def _poll(self) -> None:
        """Serve every callback, in this thread alone."""
        while not self._closed.is_set():
            try:
                self._producer.poll(POLL_S)
            # the producer failed for good; the next `send` replaces it
            except self._kafka.KafkaException as error:
                _log.warning("producer_failed error=%s", error)
                self._closed.wait(POLL_S)
