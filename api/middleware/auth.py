"""Checks the keys of requests, in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.types import Scope

from api.errors import ApiError
from core.settings import Settings

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PROTECTED_PREFIX = "/api/"
"""Below it, reads obey API_READ_KEYS and all other methods API_KEYS; health, metrics and docs stay
open.
"""
ADMIN_PREFIX = "/api/models"
"""Below it, all other methods obey API_ADMIN_KEYS: a writer's key may not change the live model."""
ADMIN_ONLY_PREFIX = "/api/dead-letters"
"""Below it, reads obey API_ADMIN_KEYS too: dead letters are messages of users."""


class Keys:
    """A set of keys.

    Only their SHA-256 is stored, so that a comparison takes the same time for every text.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(sorted(hashlib.sha256(key.encode()).digest() for key in keys))

    def __len__(self) -> int:
        return len(self._digests)

    def accepts(self, presented: bytes) -> bool:
        """Whether `presented` is one of the keys.

        Always compares with every key: the time does not show which one matches.
        """
        digest = hashlib.sha256(presented).digest()
        accepted = False
        for key in self._digests:
            accepted |= hmac.compare_digest(digest, key)
        return accepted


class Authorization:
    """Decides by method, path and headers whether a request is allowed."""

    def __init__(self, settings: Settings) -> None:
        admins, writers, readers = (
            [key.get_secret_value() for key in keys]
            for keys in (settings.api_admin_keys, settings.api_keys, settings.api_read_keys)
        )
        self._admins, self._writers = Keys(admins), Keys(writers)
        self._readers = Keys([*readers, *writers, *admins] if readers else [])

    def key_digest(self, scope: Scope) -> bytes | None:
        """The digest of the request's key, if the key is one of this server's; else None."""
        presented = _presented(scope)
        if presented and any(
            keys.accepts(presented) for keys in (self._writers, self._readers, self._admins)
        ):
            return hashlib.sha256(presented).digest()
        return None

    def refusal(self, scope: Scope) -> ApiError | None:
        """None when allowed; else 401 (no key, or a wrong one) or 403 (this key may not, or no key
        may).
        """
        if not scope["path"].startswith(PROTECTED_PREFIX):
            return None
        admin_only = scope["path"].startswith(ADMIN_ONLY_PREFIX)
        if scope["method"] in READING_METHODS and not admin_only:
            return (
                None
                if not self._readers or self._readers.accepts(_presented(scope))
                else _unauthorized("API_READ_KEYS or API_KEYS")
            )
        presented = _presented(scope)
        if admin_only or scope["path"].startswith(ADMIN_PREFIX):
            return self._admin_refusal(presented)
        if not self._writers:
            return _disabled("writes_disabled", "writes and deletes need", "API_KEYS")
        return None if self._writers.accepts(presented) else _unauthorized("API_KEYS")

    def _admin_refusal(self, presented: bytes) -> ApiError | None:
        if not self._admins:
            return _disabled(
                "admin_disabled",
                "promoting, rolling back, requesting retrains and dead letters need",
                "API_ADMIN_KEYS",
            )
        if self._admins.accepts(presented):
            return None
        if self._writers.accepts(presented):
            text = (
                "this key may write events and entries, not change the live model or see dead "
                "letters: send one of the server's API_ADMIN_KEYS"
            )
            return ApiError(403, "forbidden", text)
        return _unauthorized("API_ADMIN_KEYS")


def _disabled(word: str, what: str, name: str) -> ApiError:
    text = (
        f"{what} a key and this server has none: set {name} (comma-separated) in its "
        f"environment, then send one of them as X-API-Key"
    )
    return ApiError(403, word, text)


def _unauthorized(names: str) -> ApiError:
    text = (
        f"send one of the server's {names} in the header X-API-Key, or as Authorization: Bearer "
        f"<key>"
    )
    return ApiError(401, "unauthorized", text, {"www-authenticate": "Bearer"})


def _presented(scope: Scope) -> bytes:
    """The key in the request's headers; empty when there is none."""
    bearer = b""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return bytes(value).strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            bearer = bytes(value[7:]).strip()
    return bearer
