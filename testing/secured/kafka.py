"""Runs Apache Kafka with a listener for each security protocol.

One broker has them all, so a test of another protocol needs no other broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from testing.apache import KafkaBroker
from testing.certificates import Certificates
from testing.ports import HOST, free_port
from testing.secured.oidc import TokenServer

USER = "eddyline"
"""May do everything; so may requests without a login and the certificate of `eddyline`."""
LIMITED = "limited"
"""May do what a test allows by ACLs."""
PASSWORD = 'p#ss/w"rd,=;@1'  # noqa: S105 - of a test's broker
"""Has each character that ends a value in a URL, a JAAS line or a list of properties."""

_SECURITY = "org.apache.kafka.common.security"
_SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")


class SecuredKafka(KafkaBroker):
    """Apache Kafka with SASL, TLS and ACLs; `listeners` has the address of each protocol."""

    def __init__(
        self, directory: Path, certificates: Certificates, tokens: TokenServer | None = None
    ) -> None:
        """`tokens`: whose tokens OAUTHBEARER accepts; None: no OAUTHBEARER."""
        super().__init__(directory, properties=_properties(certificates, tokens))
        ports = [free_port(besides=self.port) for _ in range(3)]
        self._secured = dict(zip(("SASL_PLAINTEXT", "SASL_SSL", "SSL"), ports, strict=True))
        if tokens is not None:
            urls = f"{tokens.token_url},{tokens.keys_url}"
            self._jvm_options = (f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={urls}",)

    @property
    def listeners(self) -> Mapping[str, str]:
        """Security protocol -> host:port."""
        return {
            **super().listeners,
            **{protocol: f"{HOST}:{port}" for protocol, port in self._secured.items()},
        }

    def start(self) -> Self:
        """Start, and store the SCRAM credentials of the users."""
        super().start()
        for user in (USER, LIMITED):
            self.add_user(user)
        return self

    def add_user(self, user: str) -> None:
        """Store SCRAM credentials for a user with PASSWORD, who may do nothing yet."""
        client = AdminClient({"bootstrap.servers": self.address})
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            credential = ScramCredentialInfo(mechanism, 4096)
            change = UserScramCredentialUpsertion(user, credential, PASSWORD.encode())
            for future in client.alter_user_scram_credentials([change]).values():
                future.result(30)


def _properties(certificates: Certificates, tokens: TokenServer | None) -> dict[str, str]:
    quoted = PASSWORD.replace('"', r"\\" + '"')  # one escape for JAAS, one for the properties file
    mechanisms = ["PLAIN", *_SCRAM, *(["OAUTHBEARER"] if tokens is not None else [])]
    properties = {
        "sasl.enabled.mechanisms": ",".join(mechanisms),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates.keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates.ca),
        "listener.name.ssl.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:ANONYMOUS;User:{USER}",
        "ssl.principal.mapping.rules": r"RULE:^.*CN=([^,]+).*$/$1/",
    }
    for listener in ("sasl_plaintext", "sasl_ssl"):
        prefix = f"listener.name.{listener}"
        properties[f"{prefix}.plain.sasl.jaas.config"] = (
            f"{_SECURITY}.plain.PlainLoginModule required "
            f'user_{USER}="{quoted}" user_{LIMITED}="{quoted}";'
        )
        for mechanism in _SCRAM:
            properties[f"{prefix}.{mechanism.lower()}.sasl.jaas.config"] = (
                f"{_SECURITY}.scram.ScramLoginModule required;"
            )
        if tokens is not None:
            oauth = f"{prefix}.oauthbearer"
            properties |= {
                f"{oauth}.sasl.jaas.config": (
                    f"{_SECURITY}.oauthbearer.OAuthBearerLoginModule required;"
                ),
                f"{oauth}.sasl.server.callback.handler.class": (
                    f"{_SECURITY}.oauthbearer.OAuthBearerValidatorCallbackHandler"
                ),
                f"{oauth}.sasl.oauthbearer.jwks.endpoint.url": tokens.keys_url,
                f"{oauth}.sasl.oauthbearer.expected.audience": tokens.AUDIENCE,
            }
    return properties
