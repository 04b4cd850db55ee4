"""Picks the broker that this machine can run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from testing.apache import KafkaBroker, kafka_home
from testing.tansu import TansuBroker

BrokerKind = Literal["apache", "tansu"]


def broker_kinds() -> list[BrokerKind]:
    """The brokers that this machine can run, the preferred one first."""
    return ["apache", "tansu"] if kafka_home() is not None else ["tansu"]


def broker(
    directory: Path, kind: BrokerKind | None = None, port: int | None = None
) -> KafkaBroker | TansuBroker:
    """A broker, not started yet.

    None: Apache Kafka where KAFKA_HOME and java are there, or else Tansu.
    """
    return (
        KafkaBroker(directory, port)
        if (kind or broker_kinds()[0]) == "apache"
        else TansuBroker(directory, port)
    )
