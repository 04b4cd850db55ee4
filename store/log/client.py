"""Configures every Kafka client, creates topics, and describes the errors of a broker."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from core.errors import ConfigurationError, LogRefused, LogUnavailable
from core.settings import Settings
from store.log.access.refusals import REFUSALS, login_advice, permission_advice
from store.log.access.security import security_config
from store.log.client_events import ClientEvents
from store.log.topics import needs

_REFUSED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
_NO_BROKER = (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN)
"""Codes of a call that no broker answered in its time."""
_STEP_S = 2.0
"""Seconds between two looks for a refused login. A broker that starts may refuse a first try."""

METADATA_MS = 10_000
"""Milliseconds until a client notices added partitions; librdkafka's default is 300,000.

Each refresh is one small request.
"""


def client_config(settings: Settings) -> dict[str, Any]:
    """The configuration of every Kafka client. librdkafka's log lines go to structlog."""
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "socket.timeout.ms": int(settings.kafka_timeout_s * 1000),
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,  # reconnects to a restarted broker within a second
        "topic.metadata.refresh.interval.ms": METADATA_MS,
    }
    return config | security_config(settings) | ClientEvents().config()


def consumer_config(settings: Settings, group: str) -> dict[str, Any]:
    """The configuration of a consumer that commits nothing by itself.

    It reports an error when the log does not hold its offset.
    """
    tuning = {  # KAFKA_EXTRA overrules it
        "fetch.max.bytes": 16 * 1024 * 1024,  # more than the largest message of most brokers
        "queued.max.messages.kbytes": 32 * 1024,
    }
    return (
        tuning
        | client_config(settings)
        | {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": int(settings.session_timeout_s * 1000),
            "heartbeat.interval.ms": int(settings.session_timeout_s * 1000 / 5),
            "enable.partition.eof": False,
        }
    )


class _Admin(AdminClient):
    """An admin client that reports why no broker answered: its callbacks run only when polled."""

    def list_topics(self, topic: str | None = None, timeout: float = 10.0) -> Any:
        """As the library's, but a refused login ends the wait. `timeout`: seconds.

        The client would try the login again until the time is over.
        """
        deadline = time.monotonic() + timeout
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            try:
                topics = super().list_topics(topic, timeout=min(_STEP_S, left))
            except KafkaException as error:
                self.poll(0)
                waited = error.args[0].code() in _NO_BROKER and REFUSALS.latest() is None
                if not waited or left <= _STEP_S:
                    raise
            else:
                REFUSALS.clear()
                return topics


def admin(settings: Settings) -> AdminClient:
    """An admin client. Raises ConfigurationError for a property that the library refuses."""
    with refused_properties():
        return _Admin(client_config(settings))


@contextmanager
def refused_properties() -> Iterator[None]:
    """Maps the library's refusal of a property to a ConfigurationError."""
    try:
        yield
    except KafkaException as error:
        if error.args[0].code() not in (KafkaError._INVALID_ARG, KafkaError._CONFLICT):
            raise
        raise ConfigurationError(
            f"the Kafka client refuses its configuration: {error.args[0].str()}; check the "
            "KAFKA_* settings, KAFKA_EXTRA among them"
        ) from None


def reach(settings: Settings, timeout_s: float | None = None) -> None:
    """Raise LogUnavailable when no broker answers in time, LogRefused when it refuses the login.

    `timeout_s` None: KAFKA_TIMEOUT_S. Calls without this one before them do not name a refusal.
    """
    waits = timeout_s or settings.kafka_timeout_s
    try:
        admin(settings).list_topics(timeout=waits)
    except KafkaException as error:
        action = "connecting" if REFUSALS.latest() else f"connecting for {waits:g} s"
        raise unreachable(settings, action, error) from error


def ensure_topics(settings: Settings, used: Collection[str] | None = None) -> list[str]:
    """Create Eddyline's topics that are missing; returns their names. Raises LogUnavailable.

    `used`: the topics that this process uses (None: all); another one may be out of its reach.
    """
    client = admin(settings)
    try:
        existing = client.list_topics(timeout=settings.kafka_timeout_s).topics
    except KafkaException as error:
        raise unreachable(settings, "listing topics", error) from error
    missing = [
        NewTopic(
            spec.name,
            settings.topic_partitions,
            settings.topic_replication,
            config=dict(spec.config),
        )
        for spec in needs.specs(settings)
        if spec.name not in existing
    ]
    created = []
    if missing:
        for name, future in client.create_topics(
            missing, operation_timeout=settings.kafka_timeout_s
        ).items():
            try:
                future.result()
                created.append(name)
            except KafkaException as error:
                code = error.args[0].code()
                out_of_reach = used is not None and name not in used and code in _REFUSED
                # another process created it first
                if code != KafkaError.TOPIC_ALREADY_EXISTS and not out_of_reach:
                    raise unreachable(
                        settings, f"creating {name} (or, if it exists, showing it)", error
                    ) from error
    return created


def unreachable(settings: Settings, action: str, error: Exception) -> LogUnavailable:
    """The error that says which action failed, at which servers, and what to do.

    LogRefused when the broker refuses the login, the certificate or a permission.
    """
    kafka_error = error.args[0] if isinstance(error, KafkaException) else None
    reason = kafka_error.str() if kafka_error is not None else str(error)
    place = f"Kafka at {settings.kafka_bootstrap_servers}"
    advice = permission_advice(kafka_error) if kafka_error is not None else None
    if advice is not None:
        return LogRefused(f"{place} refuses {action}: {reason}; {advice}")
    if (refusal := REFUSALS.latest()) is not None:
        return LogRefused(
            f"{place} refuses the connection while {action}: {refusal}; {login_advice(refusal)}"
        )
    return LogUnavailable(
        f"{place} failed while {action}: {reason}; is the broker up, and is "
        "KAFKA_BOOTSTRAP_SERVERS right?"
    )
