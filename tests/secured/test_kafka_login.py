"""Processes log in to a secured Kafka, and say in one line why they are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupState  # type: ignore[attr-defined]
from pydantic import SecretStr
from redis import Redis

from core.settings import Settings
from store.log import client as log
from store.log.producer import Producer
from testing.certificates import Certificates
from testing.process import Child, module, settings_environment
from testing.secured_kafka import LIMITED, PASSWORD
from tests import oracle
from tests.exactly_once.conftest import caught_up
from tests.exactly_once.traffic import Traffic
from tests.secured.conftest import PROTOCOLS
from tests.support import eventually

Login = Callable[..., Settings]
Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(settings, "streams", "ingest")`, killed when the test ends."""
    children: list[Child] = []

    def run(settings: Settings, name: str, *arguments: str) -> Child:
        children.append(
            module(
                name,
                *arguments,
                directory=tmp_path / "children",
                environment=settings_environment(settings),
                label=f"{name}-{len(children)}",
            )
        )
        return children[-1].start()

    yield run
    for child in children:
        child.kill()


def members(settings: Settings, live: Child) -> int:
    """Members of the group of the live workers, once it is stable."""
    live.check()
    client = log.admin(settings)
    group = client.describe_consumer_groups([settings.live_group])
    description = group[settings.live_group].result(10)
    return len(description.members) if description.state is ConsumerGroupState.STABLE else 0


@pytest.mark.parametrize("name", PROTOCOLS)
def test_events_are_applied_through_every_listener(
    name: str, login: Login, redis: Redis, start: Start
) -> None:
    settings = login(name)
    log.ensure_topics(settings)
    traffic = Traffic(settings, 7)
    with Producer(settings) as producer:
        traffic.burst(producer, 200)
    ingest = start(settings, "streams", "ingest")
    caught_up(redis, settings, ingest)
    live = start(settings, "streams", "live")
    eventually(lambda: members(settings, live), "the live worker is a member of its group")
    oracle.assert_equal(redis, settings)


@dataclasses.dataclass(frozen=True)
class Refusal:
    """A login that the broker refuses, and what the error must name."""

    name: str
    changes: Callable[[Certificates], dict[str, Any]]
    words: tuple[str, ...]


REFUSALS = {
    "wrong password": Refusal(
        "sasl-ssl",
        lambda _: {"kafka_sasl_password": SecretStr("wr#ng/secret")},
        ("KAFKA_SASL_PASSWORD", "Invalid username or password"),
    ),
    "wrong SCRAM password": Refusal(
        "scram",
        lambda _: {"kafka_sasl_password": SecretStr("wr#ng/secret")},
        ("KAFKA_SASL_PASSWORD", "SCRAM-SHA-256"),
    ),
    "untrusted certificate": Refusal(
        "sasl-ssl",
        lambda certificates: {"kafka_ssl_ca": certificates.other_ca},
        ("KAFKA_SSL_CA", "not trusted"),
    ),
    "no client certificate": Refusal(
        "mtls",
        lambda _: {"kafka_ssl_certificate": None, "kafka_ssl_key": None},
        ("KAFKA_SSL_CERTIFICATE",),
    ),
    "wrong OAuth secret": Refusal(
        "oauth",
        lambda _: {"kafka_oauth_client_secret": SecretStr("wr#ng/secret")},
        ("KAFKA_OAUTH_CLIENT_SECRET",),
    ),
    "no permission": Refusal(
        "scram", lambda _: {"kafka_sasl_username": LIMITED}, ("permission on", "ACL")
    ),
}


@pytest.mark.parametrize(
    "process", [("streams", "ingest"), ("streams", "live")], ids=lambda process: process[1]
)
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_refused_login_ends_the_start_with_one_line_that_names_it(
    refusal: Refusal,
    process: tuple[str, str],
    login: Login,
    redis: Redis,
    certificates: Certificates,
    start: Start,
) -> None:
    settings = login(refusal.name, **refusal.changes(certificates))
    child = start(settings, *process)
    assert child.wait(60) == 1
    output = child.log.read_text()
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert all(word in error for word in refusal.words), error
    assert "Traceback" not in output
    assert "wr#ng" not in output
    assert PASSWORD not in output
