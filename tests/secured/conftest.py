"""One Apache Kafka with SASL, TLS and ACLs for the tests of this folder, and settings for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from core.settings import Settings
from testing.apache import kafka_home
from testing.certificates import Certificates
from testing.process import Child, module, settings_environment
from testing.secured.kafka import PASSWORD, USER, SecuredKafka
from testing.secured.oidc import TokenServer
from tests.secured.redis_access import RedisAccess, redis_servers

Login = Callable[..., Settings]
Start = Callable[..., Child]

PROTOCOLS = {
    "plaintext": ("PLAINTEXT", "PLAIN"),
    "scram": ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
    "sasl-ssl": ("SASL_SSL", "PLAIN"),
    "scram-ssl": ("SASL_SSL", "SCRAM-SHA-512"),
    "oauth": ("SASL_PLAINTEXT", "OAUTHBEARER"),
    "mtls": ("SSL", "PLAIN"),
}
"""Name of a way in -> security protocol and SASL mechanism."""


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def tokens() -> Iterator[TokenServer]:
    with TokenServer() as server:
        yield server


@pytest.fixture(scope="session")
def secured_kafka(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, tokens: TokenServer
) -> Iterator[SecuredKafka]:
    if kafka_home() is None:
        pytest.skip("needs Apache Kafka: KAFKA_HOME and java")
    with SecuredKafka(tmp_path_factory.mktemp("kafka"), certificates, tokens) as server:
        yield server


@pytest.fixture(scope="session")
def ways_to_redis(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[dict[str, RedisAccess]]:
    """Name -> a way to reach a Redis."""
    with redis_servers(tmp_path_factory.mktemp("secured-redis"), certificates) as ways:
        yield ways


@pytest.fixture
def login(
    settings: Settings, secured_kafka: SecuredKafka, certificates: Certificates, tokens: TokenServer
) -> Login:
    """`login("scram", kafka_sasl_username="limited")`: settings that log in so."""

    def log_in(name: str, **changes: Any) -> Settings:
        protocol, mechanism = PROTOCOLS[name]
        values: dict[str, Any] = {
            "kafka_bootstrap_servers": secured_kafka.listeners[protocol],
            "kafka_security_protocol": protocol,
        }
        if protocol.startswith("SASL_"):
            values |= {"kafka_sasl_mechanism": mechanism}
            values |= (
                {
                    "kafka_oauth_token_url": tokens.token_url,
                    "kafka_oauth_client_id": tokens.CLIENT_ID,
                    "kafka_oauth_client_secret": SecretStr(tokens.CLIENT_SECRET),
                }
                if mechanism == "OAUTHBEARER"
                else {
                    "kafka_sasl_username": USER,
                    "kafka_sasl_password": SecretStr(PASSWORD),
                }
            )
        if protocol.endswith("SSL"):
            values["kafka_ssl_ca"] = certificates.ca
        if protocol == "SSL":
            values |= {
                "kafka_ssl_certificate": certificates.client,
                "kafka_ssl_key": certificates.client_key,
            }
        return settings.model_copy(update=values | changes)

    return log_in


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(settings, "streams", "ingest")`, killed when the test ends."""
    children: list[Child] = []

    def run(settings: Settings, name: str, *arguments: str) -> Child:
        label = "-".join(("child", str(len(children)), name, *arguments[:1]))
        environment = settings_environment(settings)
        child = module(
            name,
            *arguments,
            directory=tmp_path / "children",
            environment=environment,
            label=label,
        )
        children.append(child)
        return child.start()

    yield run
    for child in children:
        child.kill()
