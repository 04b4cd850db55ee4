"""Who may call: keys from the environment, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.types import Scope

from api.errors import ApiError
from core.settings import Settings

READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
PROTECTED_PREFIX = "/api/"
"""Below it, reads obey API_READ_KEYS and all other methods API_KEYS; health, metrics and docs stay open."""


class Keys:
    """A set of keys. Holds their SHA-256 only, so that comparing takes as long whatever the length or content presented."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(sorted(hashlib.sha256(key.encode()).digest() for key in keys))

    def __len__(self) -> int:
        return len(self._digests)

    def accepts(self, presented: bytes) -> bool:
        """Whether `presented` is one of the keys. Always compares with every key: no early exit tells which one was near."""
        digest = hashlib.sha256(presented).digest()
        found = False
        for key in self._digests:
            found |= hmac.compare_digest(digest, key)
        return found


class Authorization:
    """Decides from method, path and headers whether a request may go on."""

    def __init__(self, settings: Settings) -> None:
        writers = [key.get_secret_value() for key in settings.api_keys]
        readers = [key.get_secret_value() for key in settings.api_read_keys]
        self._writers = Keys(writers)
        self._readers = Keys([*readers, *writers] if readers else [])

    def refusal(self, scope: Scope) -> ApiError | None:
        """None when allowed; else 401 (no key, or a wrong one) or 403 (nobody may: no key is configured)."""
        if not scope["path"].startswith(PROTECTED_PREFIX):
            return None
        if scope["method"] in READING_METHODS:
            keys, name = self._readers, "API_READ_KEYS or API_KEYS"
            if not keys:
                return None
        else:
            keys, name = self._writers, "API_KEYS"
            if not keys:
                return ApiError(
                    403,
                    "writes_disabled",
                    "writes and deletes need a key and this server has none: set API_KEYS "
                    "(comma-separated) in its environment, then send one of them as X-API-Key",
                )
        if keys.accepts(_presented(scope)):
            return None
        return ApiError(
            401,
            "unauthorized",
            f"send one of the server's {name} in the header X-API-Key, or as Authorization: Bearer <key>",
            {"www-authenticate": "Bearer"},
        )


def _presented(scope: Scope) -> bytes:
    """The key in the request's headers; empty when there is none."""
    bearer = b""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return bytes(value).strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            bearer = bytes(value[7:]).strip()
    return bearer
