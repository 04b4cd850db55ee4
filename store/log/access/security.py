"""Turns the settings into what the Kafka clients need to log in.

Secrets go into the configuration of a client and nowhere else: no error or log line has them.
"""

from __future__ import annotations

import ssl
from typing import Any

from core.errors import ConfigurationError
from core.settings import Settings


def security_config(settings: Settings) -> dict[str, Any]:
    """The security properties of a librdkafka client, and those of KAFKA_EXTRA."""
    config: dict[str, Any] = {}
    if settings.kafka_security_protocol != "PLAINTEXT":
        config["security.protocol"] = settings.kafka_security_protocol
    if settings.kafka_security_protocol.startswith("SASL_"):
        config |= _sasl(settings)
    if settings.kafka_security_protocol.endswith("SSL"):
        config |= _tls(settings)
    return config | {name: value.get_secret_value() for name, value in settings.kafka_extra.items()}


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """The same for Python's own TLS; None for a protocol without TLS. Raises ConfigurationError."""
    if not settings.kafka_security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_ca or None)
        if settings.kafka_ssl_certificate:
            password = settings.kafka_ssl_key_password.get_secret_value() or None
            context.load_cert_chain(
                settings.kafka_ssl_certificate, settings.kafka_ssl_key or None, password
            )
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"a certificate file of Kafka cannot be read: {error.strerror or error}; check "
            "KAFKA_SSL_CA, KAFKA_SSL_CERTIFICATE, KAFKA_SSL_KEY and KAFKA_SSL_KEY_PASSWORD"
        ) from None
    if not settings.kafka_ssl_check_hostname:
        context.check_hostname = False
    return context


def _sasl(settings: Settings) -> dict[str, Any]:
    config: dict[str, Any] = {"sasl.mechanism": settings.kafka_sasl_mechanism}
    if settings.kafka_sasl_mechanism != "OAUTHBEARER":
        return config | {
            "sasl.username": settings.kafka_sasl_username,
            "sasl.password": settings.kafka_sasl_password.get_secret_value(),
        }
    config |= {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.token.endpoint.url": settings.kafka_oauth_token_url,
        "sasl.oauthbearer.client.id": settings.kafka_oauth_client_id,
        "sasl.oauthbearer.client.secret": settings.kafka_oauth_client_secret.get_secret_value(),
    }
    if settings.kafka_oauth_scope:
        config["sasl.oauthbearer.scope"] = settings.kafka_oauth_scope
    if settings.kafka_ssl_ca:
        config["https.ca.location"] = str(settings.kafka_ssl_ca)
    return config


def _tls(settings: Settings) -> dict[str, Any]:
    optional = {
        "ssl.ca.location": settings.kafka_ssl_ca,
        "ssl.certificate.location": settings.kafka_ssl_certificate,
        "ssl.key.location": settings.kafka_ssl_key,
        "ssl.key.password": settings.kafka_ssl_key_password.get_secret_value(),
    }
    check = "https" if settings.kafka_ssl_check_hostname else "none"
    return {"ssl.endpoint.identification.algorithm": check} | {
        name: str(value) for name, value in optional.items() if value
    }
