"""A backend publishes to a secured Kafka with `eddyline_client`."""

from __future__ import annotations

from typing import Any

import pytest

from core.settings import Settings
from eddyline_client import Event, EventProducer, Unavailable
from store.log import client as log
from testing.certificates import Certificates
from testing.secured.kafka import PASSWORD, USER
from tests.secured.conftest import Login
from tests.topics import messages


def _producer(settings: Settings, certificates: Certificates, **changes: str) -> EventProducer:
    config: dict[str, Any] = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
        "ssl.ca.location": str(certificates.ca),
    }
    return EventProducer(
        settings.kafka_bootstrap_servers,
        interactions_topic=settings.interactions_topic,
        config=config | changes,
        connect_timeout_s=5,
    )


def test_a_backend_logs_in_and_publishes(login: Login, certificates: Certificates) -> None:
    settings = login("scram-ssl")
    log.ensure_topics(settings)
    with _producer(settings, certificates) as producer:
        producer.send(Event(user_id="42", item_id="9", event_type="like"))
    (message,) = messages(settings, settings.interactions_topic)
    assert message.key() == b"42"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sasl.password": "wr#ng/secret"}, "Authentication failed"),
        ({"ssl.ca.location": "other"}, "certificate"),
    ],
    ids=["password", "certificate"],
)
def test_a_refused_backend_is_told_why(
    changes: dict[str, str], reason: str, login: Login, certificates: Certificates
) -> None:
    if "ssl.ca.location" in changes:
        changes = {"ssl.ca.location": str(certificates.other_ca)}
    with pytest.raises(Unavailable, match="refuses the connection") as refused:
        _producer(login("scram-ssl"), certificates, **changes)
    assert reason in str(refused.value)
    assert "wr#ng" not in str(refused.value)
