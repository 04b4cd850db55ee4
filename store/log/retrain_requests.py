"""Requests for a retrain: what one says, how it is sent, and how a training worker reads them.

Every request has the same key, so that all lie in one partition, in order, and one worker of the
group sees them all.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from core.codec import encode_json
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
"""Milliseconds between two looks at the topic, within which a retrain must end, else the group
takes the worker for dead.
"""

_log = structlog.get_logger(__name__)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants a retrain, why, and since when (seconds since 1970; for people: what counts is the
    place in the log).
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
    """A request made now, as it is sent with KEY."""
    return encode_json(Request(requested_by=requested_by, reason=reason, at=round(time.time(), 3)))


def decode(value: bytes | None) -> Request:
    """Raises BadEvent."""
    if not value:
        raise BadEvent("empty", "the message has no value")
    if len(value) > MAX_BYTES:
        raise BadEvent("too_large", f"the request has {len(value)} bytes, more than {MAX_BYTES}")
    try:
        return _decoder.decode(value)
    except msgspec.ValidationError as error:
        raise BadEvent("bad_field", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadEvent("not_json", f"not JSON: {error}") from None


def send(settings: Settings, requested_by: str, reason: str = "") -> str:
    """Ask for a retrain; answers the token topic:partition:offset. Raises LogUnavailable."""
    log.ensure_topics(settings)
    with Producer(settings, delivery_timeout_s=settings.kafka_timeout_s) as producer:
        return producer.publish(
            settings.retrain_requests_topic, KEY, encode(requested_by, reason)
        ).result()


class Requests:
    """The requests that nobody has answered yet, one by one: `next`, then `done` when the retrain
    has ended.

    A request that is not done when its worker dies is the next worker's. The position is the
    group's own, in Kafka: reading a request twice costs nothing, because a retrain says which
    requests it answers (store.state.retrains).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._topic = settings, settings.retrain_requests_topic
        self._taken: TopicPartition | None = None

    def __enter__(self) -> Self:
        """Join the group. Raises LogUnavailable."""
        log.ensure_topics(self._settings)
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
        """The next request, or None when none came within `timeout_s` seconds."""
        message: Any = self._consumer.poll(timeout_s)
        if message is None:
            return None
        if message.error() is not None:
            _log.warning("kafka client", error=str(message.error()))
            return None
        self._taken = TopicPartition(self._topic, message.partition(), message.offset() + 1)
        return LogMessage.of(message)

    def ends(self) -> dict[int, int]:
        """Partition -> the log's end now, of the partitions of this worker.

        Raises LogUnavailable.
        """
        try:
            return {
                each.partition: self._consumer.get_watermark_offsets(
                    each, timeout=self._settings.kafka_timeout_s
                )[1]
                for each in self._consumer.assignment()
            }
        except KafkaException as error:
            raise log.unreachable(
                self._settings, f"asking for the end of {self._topic}", error
            ) from error

    def done(self) -> None:
        """The request that `next` gave needs nothing more.

        A commit that fails costs a second look at it.
        """
        assert self._taken is not None, "no request was taken"
        try:
            self._consumer.commit(offsets=[self._taken], asynchronous=False)
        except KafkaException as error:
            _log.warning(
                "a request will be looked at again", offset=self._taken.offset - 1, error=str(error)
            )

    def refuse(self, message: LogMessage, error: BadEvent) -> None:
        """Put a message that is no request into the dead-letter topic. Raises LogUnavailable."""
        record = dead_letters.encode(message, error)
        with Producer(
            self._settings, delivery_timeout_s=self._settings.kafka_timeout_s
        ) as producer:
            producer.raw(self._settings.dlq_topic, record.key, record.value, headers=record.headers)
