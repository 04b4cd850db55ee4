"""Publishes events and other messages to Kafka, with every failed delivery reported."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import structlog
from confluent_kafka import KafkaError, KafkaException, Message

from core.codec import encode_json
from core.errors import LogUnavailable
from core.settings import Settings
from core.types import Interaction, Item, User
from store.log.access.refusals import permission_advice
from store.log.client import unreachable
from store.log.client_events import IDLE_POLL_S, ClientEvents
from store.log.idempotent_client import QUEUED, DeliveryHandler, Headers, IdempotentClient

__all__ = ["DeliveryHandler", "Headers", "Producer"]

_log = structlog.get_logger(__name__)
_POLL_S = 0.1
"""Longest wait of one poll in seconds, while a caller waits for deliveries."""


class Producer:
    """Publishes messages: idempotent, acknowledged by all replicas, keyed by user, in order.

        with Producer(settings) as producer:
            producer.interaction(Interaction(
                event_id=str(uuid4()), user_id="42", item_id="startup-9", event_type="like",
                timestamp=time.time(),
            ))

    Leaving the block waits for every delivery and raises LogUnavailable, with the first reason, if
    any failed. Thread-safe.

    When the broker no longer knows this producer (see `IdempotentClient`), the messages that wait
    fail at once and a new client sends the next ones. A message is reported as accepted only when
    the broker acknowledged it.
    """

    def __init__(
        self, settings: Settings, *, delivery_timeout_s: float = 120.0, linger_ms: float = 2.0
    ) -> None:
        """Start a client and the thread that polls it.

        `delivery_timeout_s`: seconds after which a message that the broker did not acknowledge
        fails. `linger_ms`: milliseconds that a message waits for others in its batch; 0 where the
        caller waits for each message.
        """
        self._settings = settings
        self._options = {
            "message.timeout.ms": int(delivery_timeout_s * 1000),
            "linger.ms": linger_ms,
        }
        self._lock = threading.Lock()
        """Guards `_client`: no message may be queued in a client that is being replaced."""
        self._events = ClientEvents()
        self._client = IdempotentClient(settings, self._options, self._events)
        self._failures_lock = threading.Lock()
        self._failed = 0
        self._first_failure = ""
        self._publishing = threading.Event()
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="producer-deliveries", daemon=True)
        self._poller.start()

    def interaction(self, event: Interaction, on_delivery: DeliveryHandler | None = None) -> None:
        """Queue one event for delivery; blocks while the queue is full."""
        self.raw(
            self._settings.interactions_topic,
            event.user_id.encode(),
            encode_json(event),
            on_delivery,
        )

    def item(
        self, item_id: str, item: Item | None, on_delivery: DeliveryHandler | None = None
    ) -> None:
        """Queue a catalogue entry; None deletes it."""
        self.raw(
            self._settings.items_topic,
            item_id.encode(),
            None if item is None else encode_json(item),
            on_delivery,
        )

    def user(
        self, user_id: str, user: User | None, on_delivery: DeliveryHandler | None = None
    ) -> None:
        """Queue a profile; None deletes the user and all data about the user."""
        self.raw(
            self._settings.users_topic,
            user_id.encode(),
            None if user is None else encode_json(user),
            on_delivery,
        )

    def raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        on_delivery: DeliveryHandler | None = None,
        headers: Headers | None = None,
        partition: int = -1,
    ) -> None:
        """Queue any message.

        Raises LogUnavailable when the message can never be delivered (too large, no such topic).
        """
        deliver = self._watch(on_delivery)
        while True:
            try:
                with self._lock:
                    self._client.produce(topic, key, value, deliver, headers, partition)
                break
            except BufferError:  # the queue is full: wait for deliveries
                self._serve(_POLL_S)
            except KafkaException as error:
                if not self._replace_lost_client():
                    raise unreachable(self._settings, f"producing to {topic}", error) from error
        self._serve(0)

    def batch(self, topic: str, messages: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Queue (key, value) pairs in this order, at a lower cost than `raw`.

        Waits while the queue is full. Raises LogUnavailable.
        """
        deliver = self._watch(None)
        remaining: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in messages]
        while remaining:
            with self._lock:
                # never more than fits, so that none overtakes another
                room = max(1, QUEUED - len(self._client))
                part, remaining = remaining[:room], remaining[room:]
                self._client.produce_batch(topic, part, deliver)
            refused = []
            for message in part:
                error = message.pop("_error", None)
                if error is None:
                    continue
                # the next client sends what a lost one refused
                if error.code() not in (KafkaError._QUEUE_FULL, KafkaError._FATAL):
                    raise unreachable(
                        self._settings, f"producing to {topic}", KafkaException(error)
                    )
                refused.append(message)
            remaining = refused + remaining
            self._serve(0.02 if remaining else 0)

    def publish(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Headers | None = None
    ) -> Future[str]:
        """Queue a message; returns a future of its token `topic:partition:offset`.

        A thread of this producer completes the future. It raises LogUnavailable when the broker did
        not accept the message; `flush` does not raise for such a message.
        """
        self._publishing.set()
        future: Future[str] = Future()
        # so that a caller cannot cancel it: its result could not be set then
        future.set_running_or_notify_cancel()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                future.set_result(f"{message.topic()}:{message.partition()}:{message.offset()}")
            else:
                future.set_exception(
                    unreachable(self._settings, f"delivering to {topic}", KafkaException(error))
                )

        try:
            with self._lock:
                self._client.produce(topic, key, value, delivered, headers)
        except (BufferError, KafkaException) as error:
            future.set_exception(unreachable(self._settings, f"producing to {topic}", error))
        return future

    def check(self, timeout_s: float) -> None:
        """Raise LogUnavailable when no broker answers within `timeout_s`."""
        try:
            self._client.list_topics(self._settings.interactions_topic, timeout_s)
        except KafkaException as error:
            raise unreachable(self._settings, "reading its metadata", error) from error

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every queued message is delivered.

        Raises LogUnavailable if one failed or `timeout_s` passed.
        """
        deadline = time.monotonic() + (
            self._settings.kafka_timeout_s * 12 if timeout_s is None else timeout_s
        )
        while (
            left := self._client.flush(min(1.0, max(0.0, deadline - time.monotonic())))
        ) and time.monotonic() < deadline:
            self._replace_lost_client()
        with self._failures_lock:
            failed, first = self._failed, self._first_failure
            self._failed, self._first_failure = 0, ""
        if failed or left:
            raise LogUnavailable(
                f"{failed + left} messages were not delivered to "
                f"{self._settings.kafka_bootstrap_servers}"
                f" ({first or 'no answer in time'}); send them again: their event_id keeps "
                f"them from counting twice"
            )

    def close(self, timeout_s: float | None = None) -> None:
        """Wait for deliveries and stop. Raises LogUnavailable as `flush`."""
        try:
            self.flush(timeout_s)
        finally:
            self._closed.set()
            self._publishing.set()  # wakes the poller
            self._poller.join()
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Messages that wait for delivery."""
        return len(self._client)

    def _watch(self, on_delivery: DeliveryHandler | None) -> DeliveryHandler:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                advice = permission_advice(error)
                reason = f"{error.str()}: {message.topic()}; {advice}" if advice else error.str()
                self._note_failures(1, reason)
            if on_delivery is not None:
                on_delivery(error, message)

        return delivered

    def _note_failures(self, count: int, reason: str) -> None:
        with self._failures_lock:
            self._failed += count
            self._first_failure = self._first_failure or reason

    def _serve(self, timeout_s: float) -> None:
        """Call the handlers of delivered messages, for `timeout_s` seconds at most."""
        self._client.poll(timeout_s)
        self._replace_lost_client()

    def _replace_lost_client(self) -> bool:
        """Replace a client that can send nothing any more; the messages that wait in it fail.

        True when this call or another thread replaced it.
        """
        lost = self._client
        if lost.lost is None:
            return False
        with self._lock:
            if self._client is not lost:
                return True
            self._client = IdempotentClient(self._settings, self._options, self._events)
        _log.warning("producer_replaced", cause=lost.lost, waiting=len(lost))
        if unresolved := lost.close():
            self._note_failures(unresolved, lost.lost)
        return True

    def _poll(self) -> None:
        while not self._closed.is_set():
            if self._publishing.is_set():
                self._serve(_POLL_S)
            else:
                self._serve(0)
                self._publishing.wait(IDLE_POLL_S)
