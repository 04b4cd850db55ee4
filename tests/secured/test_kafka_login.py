"""Processes log in to a secured Kafka, and say in one line why they are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from core.settings import Settings
from store.log import client as log
from store.log.groups import Groups
from store.log.producer import Producer
from testing.certificates import Certificates
from testing.process import Child
from testing.secured.kafka import PASSWORD
from tests import oracle
from tests.exactly_once.conftest import caught_up
from tests.exactly_once.traffic import Traffic
from tests.secured.conftest import Login, Start
from tests.support import eventually


def assert_refused(child: Child, *words: str) -> None:
    """The process ends with one line that has these words and no password."""
    assert child.wait(90) == 1, child.describe("goes on")
    output = child.log.read_text()
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert all(word in error for word in words), error
    assert "Traceback" not in output
    assert "wr#ng" not in output
    assert PASSWORD not in output


def members(settings: Settings, live: Child) -> int:
    """Members of the group of the live workers that have partitions."""
    live.check()
    of_group = Groups(settings).members([settings.live_group])[settings.live_group]
    return sum(not member.endswith(" 0 partitions") for member in of_group)


@pytest.mark.parametrize("name", ["scram-ssl", "oauth"])  # the matrix has the others
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
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_refused_login_ends_the_start_with_one_line_that_names_it(
    refusal: Refusal, login: Login, redis: Redis, certificates: Certificates, start: Start
) -> None:
    settings = login(refusal.name, **refusal.changes(certificates))
    children = [start(settings, "streams", "ingest"), start(settings, "streams", "live")]
    for child in children:
        assert_refused(child, *refusal.words)
