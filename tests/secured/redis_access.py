"""The ways in which the matrix reaches Redis: plain, TLS, and an ACL user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr
from redis import Redis

from testing.certificates import Certificates
from testing.ports import HOST, free_port
from testing.redis import RedisServer

USER = "eddyline"
PASSWORD = "r#dis/p@ss:word%1"
"""Has each character that ends a password in a URL."""


@dataclass(frozen=True)
class RedisAccess:
    """One way: its settings, and how a test empties the server.

    `wrong`: the settings with a wrong password; empty where there is no password.
    """

    changes: dict[str, Any]
    empty: Callable[[], None]
    password: str | None = None
    wrong: dict[str, Any] | None = None


def _url(scheme: str, port: int, password: str | None = None, query: str = "") -> dict[str, Any]:
    login = f"{USER}:{quote(password, safe='')}@" if password is not None else ""
    return {"redis_url": SecretStr(f"{scheme}://{login}{HOST}:{port}/0{query}")}


@contextmanager
def redis_servers(directory: Path, certificates: Certificates) -> Iterator[dict[str, RedisAccess]]:
    """Start the servers; the ways by name."""
    port = free_port()
    tls_port = free_port(besides=port)
    options = {
        "tls-port": str(tls_port),
        "tls-cert-file": str(certificates.server),
        "tls-key-file": str(certificates.server_key),
        "tls-ca-cert-file": str(certificates.ca),
        "tls-auth-clients": "no",
    }
    with RedisServer(directory, port, options=options) as server, Redis(HOST, port) as admin:
        admin.acl_setuser(
            USER,
            enabled=True,
            passwords=[f"+{PASSWORD}"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
        )
        assert server.url.startswith("redis://")
        query = f"?ssl_ca_certs={certificates.ca}"
        yield {
            "redis": RedisAccess(_url("redis", port), admin.flushall),
            "rediss": RedisAccess(_url("rediss", tls_port, query=query), admin.flushall),
            "acl": RedisAccess(
                _url("redis", port, PASSWORD),
                admin.flushall,
                PASSWORD,
                _url("redis", port, "wr#ng/redis"),
            ),
        }
