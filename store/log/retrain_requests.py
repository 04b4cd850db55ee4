"""Sends requests for a retrain to Kafka, and reads them for a training worker.

Every request has the same key, so that all are in one partition, in order, and one worker of the
group reads them all.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from core.codec import encode_json
from core.contract import problems
from core.errors import BadEvent
from core.settings import Settings
from store.log import client as log
from store.log import dead_letters
from store.log.message import LogMessage
from store.log.producer import Producer

KEY = b"retrain"
MAX_BYTES = 16 * 1024
"""Bytes of the largest request that is read."""
MAX_RETRAIN_MS = 24 * 3600 * 1000
"""Milliseconds in which a retrain must end: after longer without a poll, the group assigns the
partition to another worker.
"""

_log = structlog.get_logger(__name__)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Who requests a retrain, why, and when (`at`, seconds since 1970).

    `at` is for display: requests are ordered by their offset.
    """

    requested_by: str
    reason: str = ""
    at: float = 0.0

    def __post_init__(self) -> None:
        for name, text, least in (
            ("requested_by", self.requested_by, 1),
            ("reason", self.reason, 0),
        ):
            if not least <= len(text) <= 500:
                raise ValueError(f"{name} must have {least} to 500 characters, not {len(text)}")


_decoder = msgspec.json.Decoder(Request)


def encode(requested_by: str, reason: str = "") -> bytes:
    """The value of a message that requests a retrain now; its key is KEY."""
    return encode_json(Request(requested_by=requested_by, reason=reason, at=round(time.time(), 3)))


def decode(value: bytes | None) -> Request:
    """The request in a message. Raises BadEvent."""
    if not value:
        raise BadEvent("empty", "the message has no value")
    if len(value) > MAX_BYTES:
        raise BadEvent("too_large", f"the request has {len(value)} bytes, more than {MAX_BYTES}")
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        code = "bad_field" if isinstance(error, msgspec.ValidationError) else "not_json"
        raise BadEvent(code, problems.in_words(error, value, "request")) from None


def send(settings: Settings, requested_by: str, reason: str = "") -> str:
    """Request a retrain; returns the token topic:partition:offset. Raises LogUnavailable."""
    log.ensure_topics(settings, [settings.retrain_requests_topic])
    with Producer(settings, delivery_timeout_s=settings.kafka_timeout_s) as producer:
        return producer.publish(
            settings.retrain_requests_topic, KEY, encode(requested_by, reason)
        ).result()


class Requests:
    """The requests that no worker has answered yet: `next`, then `done` when the retrain ended.

    The next worker reads a request that was not done when its worker died. The position is the
    group's offset in Kafka. A request that is read twice does no harm, because a retrain records
    which requests it answers (store.state.retrains).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._topic = settings, settings.retrain_requests_topic
        self._next_position: TopicPartition | None = None

    def __enter__(self) -> Self:
        """Join the group. Raises LogUnavailable."""
        log.ensure_topics(self._settings, [self._topic, self._settings.dlq_topic])
        config = log.consumer_config(self._settings, self._settings.trainer_group) | {
            "auto.offset.reset": "earliest",
            "max.poll.interval.ms": MAX_RETRAIN_MS,
            "queued.max.messages.kbytes": 1024,
        }
        self._consumer = Consumer(config)
        self._consumer.subscribe([self._topic])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._consumer.close()

    def next(self, timeout_s: float) -> LogMessage | None:
        """The next request, or None when none arrived within `timeout_s` seconds."""
        message: Any = self._consumer.poll(timeout_s)
        if message is None:
            return None
        if message.error() is not None:
            _log.warning("kafka_client_error", error=str(message.error()))
            return None
        self._next_position = TopicPartition(self._topic, message.partition(), message.offset() + 1)
        return LogMessage.of(message)

    def ends(self) -> dict[int, int]:
        """The log's end now, of each partition of this worker. Raises LogUnavailable."""
        try:
            return {
                assigned.partition: self._consumer.get_watermark_offsets(
                    assigned, timeout=self._settings.kafka_timeout_s
                )[1]
                for assigned in self._consumer.assignment()
            }
        except KafkaException as error:
            raise log.unreachable(
                self._settings, f"asking for the end of {self._topic}", error
            ) from error

    def done(self) -> None:
        """Commit the offset of the request that `next` returned.

        If the commit fails, the request is read again.
        """
        assert self._next_position is not None, "no request was read"
        try:
            self._consumer.commit(offsets=[self._next_position], asynchronous=False)
        except KafkaException as error:
            _log.warning(
                "offset_commit_failed",
                topic=self._topic,
                offset=self._next_position.offset,
                error=str(error),
            )

    def refuse(self, message: LogMessage, error: BadEvent) -> None:
        """Send a message that is no request to the dead-letter topic. Raises LogUnavailable."""
        record = dead_letters.encode(message, error)
        with Producer(
            self._settings, delivery_timeout_s=self._settings.kafka_timeout_s
        ) as producer:
            producer.raw(self._settings.dlq_topic, record.key, record.value, headers=record.headers)
