"""Connections to Redis and what the server must be set to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import StoreCorrupt, StoreMisconfigured, StoreUnavailable
from core.settings import Settings

MIN_VERSION = (7, 0)
"""Redis 7 or Valkey: listpacks (memory a user), and EXEC written to the AOF as one unit."""


def connect(settings: Settings, timeout_s: float | None = None) -> redis.Redis:
    """A client of the server at REDIS_URL; answers are bytes. Connects on first use.

    A command is never sent twice by the client itself: whether to repeat it is the caller's decision, made by position.
    """
    timeout = timeout_s or settings.redis_timeout_s
    return redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=timeout, socket_connect_timeout=timeout,
                                retry=Retry(NoBackoff(), 0))


def connect_async(settings: Settings, timeout_s: float | None = None) -> redis.asyncio.Redis:
    """The same for asyncio."""
    timeout = timeout_s or settings.redis_timeout_s
    return redis.asyncio.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=timeout, socket_connect_timeout=timeout,
                                        retry=redis.asyncio.retry.Retry(NoBackoff(), 0))


@contextmanager
def named_errors(what: str) -> Iterator[None]:
    """Maps every error of the client to one of ours, naming what was being done.

    Raises StoreUnavailable (worth a retry) or StoreCorrupt (not).
    """
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise StoreUnavailable(f"Redis did not answer while {what}: {error}; is it up, and is REDIS_URL right?") from error
    except redis.ResponseError as error:
        raise of_reply(what, error) from error


def of_reply(what: str, error: redis.ResponseError) -> StoreUnavailable | StoreCorrupt:
    """Our error for an error reply. Loading, read-only and out-of-memory servers come back; a wrong type does not."""
    text = str(error)
    if isinstance(error, redis.BusyLoadingError | redis.ReadOnlyError | redis.OutOfMemoryError) or \
            text.startswith(("LOADING", "READONLY", "OOM", "MISCONF", "MASTERDOWN", "BUSY", "TRYAGAIN", "CLUSTERDOWN")):
        return StoreUnavailable(f"Redis refused while {what}: {text}")
    return StoreCorrupt(f"Redis answered {text!r} while {what}; a key there is not of the type that Eddyline writes")


def check_server(client: redis.Redis) -> None:
    """Raises StoreMisconfigured unless the server is new enough and never evicts; StoreUnavailable if it is not there."""
    with named_errors("checking the server"):
        info = client.info("server")
        memory = client.info("memory")
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
        raise StoreMisconfigured(f"Redis is version {version}; Eddyline needs {MIN_VERSION[0]}.{MIN_VERSION[1]} or newer (or Valkey)")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StoreMisconfigured(f"Redis has maxmemory-policy {policy}, which would drop counted data; set it to noeviction "
                                 "(CONFIG SET maxmemory-policy noeviction, and in redis.conf)")
