"""Settings of how the Kafka clients log in: protocol, SASL, TLS, and any other client property."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]


class KafkaSecuritySettings(BaseModel, frozen=True):
    """One place for every client: librdkafka's, its admin client, and Faust's."""

    kafka_security_protocol: Protocol = Field(
        "PLAINTEXT",
        description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, as the listener has it",
    )
    kafka_sasl_mechanism: Mechanism = Field(
        "PLAIN", description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    )
    kafka_sasl_username: str = Field("", description="user of PLAIN and SCRAM")
    kafka_sasl_password: SecretStr = Field(
        SecretStr(""), description="password of PLAIN and SCRAM; or KAFKA_SASL_PASSWORD_FILE"
    )
    kafka_oauth_token_url: str = Field(
        "",
        pattern=r"^(https?://.*)?$",
        description="token endpoint of OAUTHBEARER, by the client-credentials grant",
    )
    kafka_oauth_client_id: str = Field("", description="client id for the token endpoint")
    kafka_oauth_client_secret: SecretStr = Field(
        SecretStr(""), description="its secret; or KAFKA_OAUTH_CLIENT_SECRET_FILE"
    )
    kafka_oauth_scope: str = Field("", description="scope requested with a token; empty: none")
    kafka_ssl_ca: Path | None = Field(
        None, description="PEM file of the authorities to trust; unset: those of the system"
    )
    kafka_ssl_certificate: Path | None = Field(
        None, description="PEM file of the client's certificate, for brokers that ask for one"
    )
    kafka_ssl_key: Path | None = Field(None, description="PEM file of the key of that certificate")
    kafka_ssl_key_password: SecretStr = Field(
        SecretStr(""), description="password of the key; or KAFKA_SSL_KEY_PASSWORD_FILE"
    )
    kafka_ssl_check_hostname: bool = Field(
        True, description="whether the broker's certificate must name the host it answers for"
    )
    kafka_extra: Annotated[dict[str, SecretStr], NoDecode] = Field(
        {},
        description=(
            "further librdkafka properties of every client but Faust's, as name=value separated "
            "by commas, or as a JSON object; they overrule ours, except where counting exactly "
            "once or another setting decides"
        ),
    )

    @field_validator("kafka_extra", mode="before")
    @classmethod
    def _parse_extra(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("{"):
            try:
                return {name: str(text) for name, text in json.loads(value).items()}
            except ValueError:
                raise ValueError("KAFKA_EXTRA is no valid JSON object") from None
        properties = {}
        for number, pair in enumerate(filter(None, map(str.strip, value.split(","))), 1):
            name, equals, text = pair.partition("=")
            if not equals or not name.strip():
                raise ValueError(f"pair {number} of KAFKA_EXTRA is not of the form name=value")
            properties[name.strip()] = text.strip()
        return properties

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        """What a protocol needs is there."""
        if self.kafka_security_protocol.startswith("SASL_"):
            needs = (
                ("kafka_oauth_token_url", "kafka_oauth_client_id", "kafka_oauth_client_secret")
                if self.kafka_sasl_mechanism == "OAUTHBEARER"
                else ("kafka_sasl_username", "kafka_sasl_password")
            )
            for name in needs:
                value = getattr(self, name)
                if not (value.get_secret_value() if isinstance(value, SecretStr) else value):
                    raise ValueError(
                        f"KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} with "
                        f"KAFKA_SASL_MECHANISM={self.kafka_sasl_mechanism} needs {name.upper()}"
                    )
        for name in ("kafka_ssl_ca", "kafka_ssl_certificate", "kafka_ssl_key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name.upper()}: {path} is no file")
        return self
