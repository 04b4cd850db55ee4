"""Wraps one librdkafka producer, and detects that the broker no longer accepts its producer id.

An idempotent producer gets an id from the broker and numbers its messages, so that the broker drops
messages that are sent twice. A broker that restarts without its state (an embedded one, a wiped
disk) does not know that id. librdkafka then does one of two things:

- It fails with a fatal error, when a message may have been written before. Every later `produce`
  raises.
- It increments the epoch of its id and sends again, when it knows that the message was not written.
  Such a broker does not know the id with any epoch, so this repeats every 100 ms until the message
  times out, and for every later message: no write succeeds.

Such a broker also gives the same id to the next producer that requests one. The broker can take the
messages of two producers with one id for duplicates of each other, and acknowledge a message that
it dropped. So an id is not used again after an outage, except for messages that already wait.

A broker that has no message of a producer id in a partition accepts any number as the first. With
several requests under way, the first may arrive before the broker leads a new partition, and fail,
and the second after that, and be written: the first is then never written, and librdkafka reports
its messages as acknowledged, since later ones were (KAFKA-15591). So one request is under way at a
time for each broker; messages that wait go into the next one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from core.settings import Settings
from store.log.client import client_config
from store.log.client_events import ClientEvents

_log = structlog.get_logger(__name__)

MAX_MESSAGE_BYTES = 1_048_576
"""Largest message that the producer sends: Kafka's own default limit."""
QUEUED = 200_000
"""Maximum number of messages that wait for delivery in one client."""
STATISTICS_MS = 500
"""Milliseconds between two reports of the client about its producer id; one costs 0.5 ms of CPU."""
MAX_REFUSED_EPOCHS = 3
"""Epochs without an acknowledged message after which the producer id counts as unknown.

One is usual after an error.
"""
CLOSE_S = 2.0
"""Seconds in which a closed client must report its messages as failed; it needs milliseconds."""

Headers = list[tuple[str, str | bytes | None]]
DeliveryHandler = Callable[[KafkaError | None, Message], None]


class _Identity(msgspec.Struct):
    producer_id: int = -1
    producer_epoch: int = -1


class _Statistics(msgspec.Struct):
    eos: _Identity = msgspec.field(default_factory=_Identity)


_decode_statistics = msgspec.json.Decoder(_Statistics).decode


class IdempotentClient:
    """A librdkafka producer: idempotent, acknowledged by all replicas, in order.

    `poll` must be called regularly.
    """

    def __init__(self, settings: Settings, options: dict[str, Any], events: ClientEvents) -> None:
        """`options`: settings of librdkafka that override those here. `events`: those of the client
        that this one replaces, so that an outage ends with the one that is connected again.
        """
        self.lost: str | None = None
        """Why this client must be replaced; None while it works."""
        self._events = events
        self._identity = _Identity()
        self._acknowledged = False
        """Whether a message was acknowledged since the last statistics."""
        self._failed = 0
        """Messages that failed since the last acknowledged one."""
        self._reports: deque[tuple[DeliveryHandler, KafkaError | None, Message]] = deque()
        self._reports_lock = threading.RLock()  # a handler may publish, which polls
        self._accepted_epoch = 0
        """The latest epoch with which the broker accepted the id."""
        self._outage = False
        self._producer = Producer(
            client_config(settings)
            | events.config()
            | {
                "enable.idempotence": True,
                "acks": "all",
                "max.in.flight.requests.per.connection": 1,
                "compression.type": "lz4",
                # as Kafka's own clients: every backend sends a user to the same partition
                "partitioner": "murmur2_random",
                "message.max.bytes": MAX_MESSAGE_BYTES,
                "queue.buffering.max.messages": QUEUED,
                "statistics.interval.ms": STATISTICS_MS,
                "stats_cb": self._on_statistics,
                "error_cb": self._on_error,
            }
            | options
        )

    def produce(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        on_delivery: DeliveryHandler,
        headers: Headers | None = None,
        partition: int = -1,
    ) -> None:
        """Queue a message.

        Raises BufferError while the queue is full, KafkaException when the message can never be
        delivered.
        """
        try:
            self._producer.produce(
                topic,
                value=value,
                key=key,
                on_delivery=self._collector(on_delivery),
                headers=headers,
                partition=partition,
            )
        except KafkaException as error:
            self._note_fatal(error)
            raise

    def produce_batch(
        self, topic: str, messages: list[dict[str, Any]], on_delivery: DeliveryHandler
    ) -> None:
        """Queue messages (`key`, `value`); a message that is refused gets an `_error`."""
        self._producer.produce_batch(topic, messages, on_delivery=self._collector(on_delivery))
        for message in messages:
            if (error := message.get("_error")) is not None and error.code() == KafkaError._FATAL:
                self._note_fatal(KafkaException(error))

    def poll(self, timeout_s: float) -> None:
        """Run the callbacks of deliveries, errors and statistics.

        Waits up to `timeout_s` seconds for the first of them.
        """
        try:
            self._producer.poll(timeout_s)
        except KafkaException as error:  # the library raises a fatal error here, once
            self._note_fatal(error)
        self._deliver_reports()

    def flush(self, timeout_s: float) -> int:
        """Wait up to `timeout_s` seconds for deliveries; returns how many messages still wait."""
        try:
            waiting = self._producer.flush(timeout_s)
        except KafkaException as error:
            self._note_fatal(error)
            waiting = len(self._producer)
        self._deliver_reports()
        return waiting

    def list_topics(self, topic: str, timeout_s: float) -> None:
        """Request metadata of `topic`. Raises KafkaException when no broker answers in time."""
        self._producer.list_topics(topic, timeout=timeout_s)

    def close(self) -> int:
        """Fail every message that waits and close the client.

        Returns how many messages got no report.
        """
        self._producer.purge()
        unresolved = self.flush(CLOSE_S)
        self._producer.close()
        self._deliver_reports()
        return unresolved

    def __len__(self) -> int:
        """Messages that wait for delivery."""
        return len(self._producer)

    def _collector(self, on_delivery: DeliveryHandler) -> DeliveryHandler:
        """A delivery callback that only queues the report.

        The library may call back while an exception is pending, after a fatal error. A lock that is
        acquired there would never be released, so handlers run later, outside of the library.
        """
        append = self._reports.append

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self._acknowledged = True
            else:
                self._failed += 1
            append((on_delivery, error, message))

        return delivered

    def _deliver_reports(self) -> None:
        """Call the handlers of the queued reports.

        Returns when those that another thread calls have returned too: a flush with no message left
        must know of every failure.
        """
        with self._reports_lock:
            while self._reports:
                on_delivery, error, message = self._reports.popleft()
                on_delivery(error, message)

    def _on_statistics(self, text: str) -> None:
        self._events.statistics(text)
        previous, self._identity = self._identity, _decode_statistics(text).eos
        if self._acknowledged or self._identity.producer_id != previous.producer_id:
            self._acknowledged, self._failed = False, 0
            self._accepted_epoch = self._identity.producer_epoch
        # a message that times out increments the epoch once, too, without a refusal
        elif (
            self._identity.producer_epoch - self._accepted_epoch - self._failed
            >= MAX_REFUSED_EPOCHS
        ):
            self._lose("the broker does not know this producer's id")
        if self._outage and not len(self._producer):
            self._lose("all brokers were unreachable: another producer may have this id now")

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._outage = self._outage or self._acknowledged or self._identity.producer_id >= 0
        self._events.error(error)

    def _note_fatal(self, error: KafkaException) -> None:
        if error.args[0].fatal() or error.args[0].code() == KafkaError._FATAL:
            self._lose(str(error.args[0].str()))

    def _lose(self, cause: str) -> None:
        self.lost = self.lost or cause
