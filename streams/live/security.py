"""How Faust's client logs in to Kafka, from the same settings as every other client."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request

import faust
from aiokafka.abc import AbstractTokenProvider
from faust.auth import OAuthCredentials
from faust.types.auth import CredentialsT

from core.errors import LogRefused
from core.settings import Settings
from store.log.access.security import ssl_context

_EARLY = 0.8
"""Share of a token's life after which the next one is requested."""


def credentials(settings: Settings) -> CredentialsT | None:
    """Faust's credentials; None for an unsecured broker. Raises ConfigurationError."""
    protocol, context = settings.kafka_security_protocol, ssl_context(settings)
    if protocol == "PLAINTEXT":
        return None
    if context is not None and protocol == "SSL":
        return faust.SSLCredentials(context)
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=TokenProvider(settings), ssl_context=context)
    return faust.SASLCredentials(
        username=settings.kafka_sasl_username,
        password=settings.kafka_sasl_password.get_secret_value(),
        mechanism=settings.kafka_sasl_mechanism,
        ssl_context=context,
    )


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens of KAFKA_OAUTH_TOKEN_URL by the client-credentials grant (RFC 6749, 4.4)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._token, self._until = "", 0.0

    async def token(self) -> str:
        """A token that is valid now. Raises LogRefused."""
        if time.monotonic() >= self._until:
            self._token, seconds = await asyncio.to_thread(self._request)
            self._until = time.monotonic() + seconds * _EARLY
        return self._token

    def _request(self) -> tuple[str, float]:
        """A new token, and the seconds that it is valid."""
        settings = self._settings
        form = {"grant_type": "client_credentials"}
        if settings.kafka_oauth_scope:
            form["scope"] = settings.kafka_oauth_scope
        client = (
            f"{urllib.parse.quote_plus(settings.kafka_oauth_client_id)}:"
            f"{urllib.parse.quote_plus(settings.kafka_oauth_client_secret.get_secret_value())}"
        )
        request = urllib.request.Request(  # noqa: S310 - the settings accept http and https only
            settings.kafka_oauth_token_url,
            data=urllib.parse.urlencode(form).encode(),
            headers={"Authorization": f"Basic {base64.b64encode(client.encode()).decode()}"},
        )
        # as librdkafka: the authorities of the broker, but neither its client certificate nor a
        # host name that is not checked
        context = ssl.create_default_context(cafile=settings.kafka_ssl_ca)
        try:
            with urllib.request.urlopen(  # noqa: S310
                request, timeout=settings.kafka_timeout_s, context=context
            ) as answer:
                body = json.load(answer)
            return str(body["access_token"]), float(body.get("expires_in", 60))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LogRefused(
                f"{settings.kafka_oauth_token_url} gave no token: {error}; check "
                "KAFKA_OAUTH_TOKEN_URL, KAFKA_OAUTH_CLIENT_ID, KAFKA_OAUTH_CLIENT_SECRET and "
                "KAFKA_OAUTH_SCOPE"
            ) from None
