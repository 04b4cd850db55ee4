"""The producer that streams, training and the API share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import structlog
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as KafkaProducer

from core.codec import encode_json
from core.errors import LogUnavailable
from core.settings import Settings
from core.types import Interaction, Item, User
from store.log import client_config, unreachable

_log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 1_048_576
"""Largest message that the producer sends: Kafka's own default limit."""
_QUEUED = 200_000
"""Most messages that wait for delivery in one producer."""

Headers = list[tuple[str, str | bytes | None]]
Delivered = Callable[[KafkaError | None, Message], None]


class Producer:
    """Publishes events: idempotent, acknowledged by all replicas, keyed by user, in order, with every failed delivery surfaced.

        with Producer(settings) as producer:
            producer.interaction(Interaction(event_id=str(uuid4()), user_id="42", item_id="startup-9",
                                             event_type="like", timestamp=time.time()))

    Leaving the block waits for every delivery and raises LogUnavailable, with the first reason, if any failed. Thread-safe.
    """

    def __init__(self, settings: Settings, *, delivery_timeout_s: float = 120.0, linger_ms: float = 2.0) -> None:
        """`delivery_timeout_s`: seconds until an event that the broker does not take counts as failed; `linger_ms`: milliseconds
        that an event waits for others to travel with; 0 where a caller waits for each."""
        self._settings = settings
        self._producer = KafkaProducer(
            client_config(settings)
            | {
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": linger_ms,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",  # the partitioner of Kafka's own clients: all backends agree where a user is
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "message.timeout.ms": int(delivery_timeout_s * 1000),
                "queue.buffering.max.messages": _QUEUED,
            }
        )
        self._lock = threading.Lock()
        self._failed = 0
        self._first_failure = ""
        self._poller: threading.Thread | None = None
        self._closed = threading.Event()
        self.fatal: str | None = None
        """Why this producer can send nothing any more (the broker lost what it knew of it); make another one."""

    def interaction(self, event: Interaction, on_delivery: Delivered | None = None) -> None:
        """Queue one event for delivery; blocks while the queue is full."""
        self.raw(self._settings.interactions_topic, event.user_id.encode(), encode_json(event), on_delivery)

    def item(self, item_id: str, item: Item | None, on_delivery: Delivered | None = None) -> None:
        """Queue a catalogue entry; None deletes it."""
        self.raw(self._settings.items_topic, item_id.encode(), None if item is None else encode_json(item), on_delivery)

    def user(self, user_id: str, user: User | None, on_delivery: Delivered | None = None) -> None:
        """Queue what a user declares; None deletes the user and everything known about them."""
        self.raw(self._settings.users_topic, user_id.encode(), None if user is None else encode_json(user), on_delivery)

    def raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        on_delivery: Delivered | None = None,
        headers: Headers | None = None,
        partition: int = -1,
    ) -> None:
        """Queue any message. Raises LogUnavailable when the message can never be delivered (too large, no such topic)."""
        deliver = self._watch(on_delivery)
        while True:
            try:
                self._producer.produce(topic, value=value, key=key, on_delivery=deliver, headers=headers, partition=partition)
                break
            except BufferError:  # the queue is full: let deliveries make room
                self._producer.poll(0.1)
            except KafkaException as error:
                raise unreachable(self._settings, f"producing to {topic}", error) from error
        self._producer.poll(0)

    def batch(self, topic: str, messages: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Queue (key, value) pairs in this order, cheaper than by `raw`; waits while the queue is full. Raises LogUnavailable."""
        deliver = self._watch(None)
        rest: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in messages]
        while rest:
            room = max(1, _QUEUED - len(self._producer))  # never more than fits, so that none overtakes another
            part, rest = rest[:room], rest[room:]
            self._producer.produce_batch(topic, part, on_delivery=deliver)
            refused = []
            for message in part:
                error = message.pop("_error", None)
                if error is None:
                    continue
                if error.code() != KafkaError._QUEUE_FULL:
                    raise unreachable(self._settings, f"producing to {topic}", KafkaException(error))
                refused.append(message)
            rest = refused + rest
            self._producer.poll(0.02 if rest else 0)

    def publish(self, topic: str, key: bytes, value: bytes | None) -> Future[str]:
        """Queue a message and answer a future of its token `topic:partition:offset`, delivered by a thread of this producer.

        The future raises LogUnavailable when the broker did not take the message; such a message does not fail `flush`.
        """
        self._start_polling()
        future: Future[str] = Future()
        future.set_running_or_notify_cancel()  # a caller that gives up cannot cancel it: setting its result would end the polling thread

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                future.set_result(f"{message.topic()}:{message.partition()}:{message.offset()}")
            else:
                future.set_exception(unreachable(self._settings, f"delivering to {topic}", KafkaException(error)))

        try:
            self._producer.produce(topic, value=value, key=key, on_delivery=delivered)
        except (BufferError, KafkaException) as error:
            future.set_exception(unreachable(self._settings, f"producing to {topic}", error))
        return future

    def check(self, timeout_s: float) -> None:
        """Ask the brokers who they are. Raises LogUnavailable when none answers within `timeout_s`."""
        try:
            self._producer.list_topics(self._settings.interactions_topic, timeout=timeout_s)
        except KafkaException as error:
            raise unreachable(self._settings, "asking for its metadata", error) from error

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every queued message is delivered. Raises LogUnavailable if one failed or the time is over."""
        left = self._producer.flush(self._settings.kafka_timeout_s * 12 if timeout_s is None else timeout_s)
        with self._lock:
            failed, first = self._failed, self._first_failure
            self._failed, self._first_failure = 0, ""
        if failed or left:
            raise LogUnavailable(
                f"{failed + left} messages were not delivered to {self._settings.kafka_bootstrap_servers}"
                f" ({first or 'no answer in time'}); send them again: their event_id keeps them from counting twice"
            )

    def close(self, timeout_s: float | None = None) -> None:
        """Wait for deliveries and stop. Raises LogUnavailable as `flush`."""
        try:
            self.flush(timeout_s)
        finally:
            self._closed.set()
            if self._poller is not None:
                self._poller.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        """Messages that wait for delivery."""
        return len(self._producer)

    def _watch(self, on_delivery: Delivered | None) -> Delivered:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                with self._lock:
                    self._failed += 1
                    self._first_failure = self._first_failure or error.str()
            if on_delivery is not None:
                on_delivery(error, message)

        return delivered

    def _start_polling(self) -> None:
        with self._lock:
            if self._poller is None:
                self._poller = threading.Thread(target=self._poll, name="producer-deliveries", daemon=True)
                self._poller.start()

    def _poll(self) -> None:
        while not self._closed.is_set():
            try:
                self._producer.poll(0.1)
            except KafkaException as error:
                if self.fatal is None:
                    self.fatal = str(error)
                    _log.error("producer failed for good", cause=self.fatal)
                self._closed.wait(0.1)  # go on: what is queued still gets its verdict here
