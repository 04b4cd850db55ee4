"""Why a Kafka broker refuses this process: the login, the certificate, or a permission.

librdkafka reports a refused login only through its error callback, and the call that waited ends
as if no broker had answered. This module keeps the reason for the call's error.
"""

from __future__ import annotations

import re
import threading
import time

from confluent_kafka import KafkaError

_RECENT_S = 30.0
"""Seconds for which a refusal explains an error: a client repeats it about once a second."""
_DETAIL = re.compile(r" \(after \d+ms in state [A-Z_]+[^)]*\)")
_LISTENER = "connecting to a PLAINTEXT broker listener"
_ALERT = "SSL alert"
"""How a broker answers that asks for a client's certificate and gets none that it trusts."""

_PERMISSIONS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the topic (Read, Write, Describe, Create)",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "the consumer group (Read)",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the cluster (Create, IdempotentWrite)",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "the transactional id (Write)",
}


class Refusals:
    """The latest refusal that a client of this process met. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reason, self._at = "", 0.0

    def note(self, error: KafkaError) -> bool:
        """Keep `error` and return True if it is a refused login or certificate."""
        text = _DETAIL.sub("", error.str())
        refused = error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)
        refused = refused or _LISTENER in text or _ALERT in text
        if refused:
            with self._lock:
                self._reason, self._at = text, time.monotonic()
        return refused

    def latest(self) -> str | None:
        """The reason, in the client's words, if it is recent."""
        with self._lock:
            return self._reason if time.monotonic() - self._at < _RECENT_S else None

    def clear(self) -> None:
        """Forget it: a broker has answered."""
        with self._lock:
            self._reason, self._at = "", 0.0


REFUSALS = Refusals()
"""Of this process: every client of it logs in the same way."""


def login_advice(reason: str) -> str:
    """What a refused login needs: one sentence that names the settings, never their values."""
    text = reason.lower()
    if _LISTENER.lower() in text:
        return "the listener speaks no TLS: check KAFKA_SECURITY_PROTOCOL and the port"
    if "certificate" in text and "verify" in text:
        return "the broker's certificate is not trusted: check KAFKA_SSL_CA"
    if _ALERT.lower() in text:
        return (
            "the broker asks for a client's certificate that it trusts: check "
            "KAFKA_SSL_CERTIFICATE and KAFKA_SSL_KEY"
        )
    if "oauthbearer" in text:
        return (
            "check KAFKA_OAUTH_TOKEN_URL, KAFKA_OAUTH_CLIENT_ID, KAFKA_OAUTH_CLIENT_SECRET "
            "and KAFKA_OAUTH_SCOPE"
        )
    if "authentication" in text:
        return "check KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
    return (
        "the TLS handshake failed: check KAFKA_SSL_CA, KAFKA_SSL_CERTIFICATE, KAFKA_SSL_KEY "
        "and KAFKA_SECURITY_PROTOCOL"
    )


def permission_advice(error: KafkaError) -> str | None:
    """What a refused request needs; None when `error` is no refused permission."""
    resource = _PERMISSIONS.get(error.code())
    return (
        None
        if resource is None
        else (
            f"the user that this process logs in as needs a permission on {resource}: add the ACL "
            "with kafka-acls.sh (docs/security.md lists the ACLs of each process)"
        )
    )
