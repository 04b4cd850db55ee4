"""The ways in which the matrix reaches Redis: plain, TLS, an ACL user, and Sentinel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr
from redis import Redis

from testing.certificates import Certificates
from testing.redis import RedisServer, SentinelGroup
from tests.support import skipped_without_tls

USER = "eddyline"
PASSWORD = "r#dis/p@ss:word%1"
"""Has each character that ends a password in a URL."""
WRONG = "wr#ng/secret"
"""A wrong password, which no output shows either."""


@dataclass(frozen=True)
class RedisAccess:
    """One way: its settings, and a client that may do everything, to empty and to check Redis.

    `wrong`: the settings with a wrong password; None where there is no password.
    """

    changes: dict[str, Any]
    admin: Redis
    password: str | None = None
    wrong: dict[str, Any] | None = None


def _with_password(server: RedisServer, password: str) -> dict[str, Any]:
    return {"redis_url": SecretStr(f"redis://{USER}:{quote(password, safe='')}@{server.address}/0")}


@contextmanager
def redis_servers(directory: Path, certificates: Certificates) -> Iterator[dict[str, RedisAccess]]:
    """Start the servers; the ways by name."""
    with ExitStack() as started:
        plain = started.enter_context(RedisServer(directory / "plain"))
        with skipped_without_tls():
            tls = started.enter_context(RedisServer(directory / "tls", certificates=certificates))
        group = started.enter_context(SentinelGroup(directory / "sentinel", password=PASSWORD))
        plain_admin = started.enter_context(Redis.from_url(plain.url))
        tls_admin = started.enter_context(Redis.from_url(tls.url, **tls.client_options))
        group_admin = started.enter_context(Redis.from_url(group.servers[0].url))
        plain_admin.acl_setuser(
            USER,
            enabled=True,
            passwords=[f"+{PASSWORD}"],
            keys=["*"],
            channels=["*"],
            categories=["+@all", "-@dangerous"],
        )
        yield {
            "redis": RedisAccess({"redis_url": SecretStr(plain.url)}, plain_admin),
            "rediss": RedisAccess(
                {"redis_url": SecretStr(tls.url), "redis_ssl_ca": certificates.ca},
                tls_admin,
            ),
            "acl": RedisAccess(
                _with_password(plain, PASSWORD),
                plain_admin,
                PASSWORD,
                _with_password(plain, WRONG),
            ),
            "sentinel": RedisAccess(
                {
                    "redis_url": SecretStr(group.url),
                    "redis_sentinel_password": SecretStr(PASSWORD),
                },
                group_admin,
                PASSWORD,
                {"redis_sentinel_password": SecretStr(WRONG)},
            ),
        }
