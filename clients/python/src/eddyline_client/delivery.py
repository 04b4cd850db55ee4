"""The queue of messages on their way to Kafka, and the thread that delivers them."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from eddyline_client.connection_log import ConnectionLog
from eddyline_client.errors import (
    DeliveryFailed,
    FailedDelivery,
    InvalidInput,
    MissingDependency,
    Unavailable,
)

if TYPE_CHECKING:
    import confluent_kafka

_log = logging.getLogger("eddyline_client")
POLL_S = 0.1
"""Seconds between two checks for deliveries, at most."""
_CHECK_S = 0.005
"""Seconds between two checks of the queue while a call waits for it."""
_PURGE_S = 5.0
"""Seconds for the results of messages that are dropped: they need no broker."""


class DeliveryQueue:
    """Delivers messages through librdkafka, in a thread of its own. Thread-safe.

    It is renewed when librdkafka cannot deliver any more. Failed messages are raised by
    `raise_failures` and by the next `put`.
    """

    def __init__(
        self, bootstrap_servers: str, config: Mapping[str, Any], connect_timeout_s: float
    ) -> None:
        """Connects at once. `config`: settings of librdkafka.

        Raises Unavailable, InvalidInput, MissingDependency.
        """
        try:
            import confluent_kafka  # optional: HTTP does not need it
        except ImportError as error:
            raise MissingDependency(
                "EventProducer needs confluent-kafka: pip install 'eddyline-client[kafka]'"
            ) from error
        self._kafka = confluent_kafka
        self._servers, self._connect_timeout_s = bootstrap_servers, connect_timeout_s
        self._connections = ConnectionLog(bootstrap_servers)
        self._config = {
            **config,
            "bootstrap.servers": bootstrap_servers,
            **self._connections.config(),
        }
        # the polling thread appends, callers remove: it needs no lock
        self._failures: deque[FailedDelivery] = deque()
        self._timed_out = False
        self._renewal = threading.Lock()
        self._closed = threading.Event()
        self._topics: frozenset[str] = frozenset()
        self._producer = self._connect()
        self._poller = threading.Thread(target=self._poll, name="eddyline-deliveries", daemon=True)
        self._poller.start()

    def __len__(self) -> int:
        """Messages that wait for delivery."""
        return len(self._producer)

    def put(self, topic: str, key: str, value: bytes | None, entry: object) -> None:
        """Queue a message; blocks while the queue is full. `entry`: what failures contain.

        Raises DeliveryFailed, Unavailable, InvalidInput.
        """

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
            self.raise_failures()
            producer = self._producer
            if self._timed_out and not len(producer):
                self._renew(producer)
                continue
            try:
                producer.produce(topic, value=value, key=key.encode(), on_delivery=on_delivery)
                return
            except BufferError:  # the queue is full: wait for room
                self._closed.wait(_CHECK_S)
            except self._kafka.KafkaException as error:
                if error.args[0].code() == self._kafka.KafkaError._FATAL:
                    self._renew(producer)
                else:
                    raise Unavailable(
                        f"Kafka at {self._servers} cannot take a message to {topic}: "
                        f"{error.args[0].str()}"
                    ) from error

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Whether every message has its result within `timeout_s`.

        librdkafka's own flush would run callbacks in this thread, and with a pending exception once
        the producer has failed permanently.
        """
        deadline = time.monotonic() + timeout_s
        while len(self._producer):
            if time.monotonic() > deadline:
                return False
            self._closed.wait(_CHECK_S)
        return True

    def raise_failures(self) -> None:
        """Raise DeliveryFailed if messages have failed since the last call."""
        failures: list[FailedDelivery] = []
        with contextlib.suppress(IndexError):  # another thread may empty it too
            while True:
                failures.append(self._failures.popleft())
        if not failures:
            return
        raise DeliveryFailed(
            f"Kafka at {self._servers} did not acknowledge {len(failures)} messages; the first, to "
            f"{failures[0].topic}: {failures[0].reason}. Send them again (`failures` has them): "
            f"a repeated event_id counts once",
            failures,
        )

    def close(self, timeout_s: float) -> None:
        """Wait `timeout_s` at most for deliveries, drop the rest, and stop. Raises DeliveryFailed.

        To call it again does nothing.
        """
        if self._closed.is_set():
            return
        try:
            self.wait_until_empty(timeout_s)
            self._drop_queued()
        finally:
            self._closed.set()
            self._poller.join()
        self.raise_failures()

    def _connect(self) -> confluent_kafka.Producer:
        """A producer that has reached a broker. Raises Unavailable, InvalidInput."""
        self._connections.is_connecting = True
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
        self._connections.refusal = ""
        self._connections.is_connecting = False
        return producer

    def _list_topics(self, producer: confluent_kafka.Producer) -> frozenset[str]:
        """All topics: to ask for one would make a broker create it. Raises Unavailable."""
        try:
            return frozenset(producer.list_topics(timeout=self._connect_timeout_s).topics)
        except self._kafka.KafkaException as error:
            self._connections.last_error = self._connections.last_error or error.args[0].str()
            raise Unavailable(self._unreachable()) from error

    def _unreachable(self) -> str:
        if self._connections.refusal:
            return (
                f"Kafka at {self._servers} refuses the connection: {self._connections.refusal}; "
                "check security.protocol, sasl.* and ssl.* of `config`"
            )
        return (
            f"Kafka at {self._servers} did not answer within {self._connect_timeout_s:g} s: "
            f"{self._connections.last_error};"
            " is the broker up, and is the address right?"
        )

    def _renew(self, failed: confluent_kafka.Producer) -> None:
        """Replace a producer that cannot deliver any more. Raises Unavailable without a broker.

        A broker that has lost its state does not know the id of an idempotent producer. librdkafka
        then fails permanently, or retries for ever with new epochs of that id, which only shows as
        time-outs.
        """
        with self._renewal:
            if self._producer is failed:
                self._drop_queued()
                self._producer = self._connect()
                self._timed_out = False

    def _drop_queued(self) -> None:
        """Fail the messages that still wait."""
        if len(self._producer):
            self._producer.purge()
            self.wait_until_empty(_PURGE_S)

    def _poll(self) -> None:
        """Run every callback, in this thread only."""
        while not self._closed.is_set():
            try:
                self._producer.poll(POLL_S)
            # the producer failed permanently; the next `put` replaces it
            except self._kafka.KafkaException as error:
                _log.warning("producer_failed error=%s", error)
                self._closed.wait(POLL_S)
