"""One message of the log, independent of the client that read it."""

from __future__ import annotations

from typing import Any, NamedTuple, Self


class LogMessage(NamedTuple):
    """`broker_time`: when the broker stamped it, in seconds since 1970."""

    topic: str
    partition: int
    offset: int
    broker_time: float
    key: bytes | None
    value: bytes | None

    @classmethod
    def of(cls, message: Any) -> Self:
        """The copy of a confluent_kafka.Message that has no error."""
        return cls(
            message.topic(),
            message.partition(),
            message.offset(),
            message.timestamp()[1] / 1000,
            message.key(),
            message.value(),
        )
