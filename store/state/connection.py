"""Connects to Redis, maps the errors of the client, and checks how the server is configured."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hiredis
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import ConfigurationError, StoreMisconfigured, StoreUnavailable
from core.redaction import error_text, redact
from core.settings import Settings
from store.state.redis_errors import is_reply, of_reply

Client = redis.Redis
"""The client, for other rooms, which must not import the client library."""

MIN_VERSION = (7, 0)
"""Redis 7 or Valkey: listpacks (less memory), and EXEC written to the AOF as one unit."""


def connect(settings: Settings, timeout_s: float | None = None) -> redis.Redis:
    """A client of the server at REDIS_URL, which connects on first use. Replies are bytes.

    The client never retries a command: the caller decides by the position whether to send it again.
    """
    timeout = timeout_s or settings.redis_timeout_s
    with _refused_url(settings):
        return redis.Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )


def connect_async(settings: Settings, timeout_s: float | None = None) -> redis.asyncio.Redis:
    """As `connect`, for asyncio."""
    timeout = timeout_s or settings.redis_timeout_s
    with _refused_url(settings):
        return redis.asyncio.Redis.from_url(
            settings.redis_url.get_secret_value(),
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
        )


@contextmanager
def _refused_url(settings: Settings) -> Iterator[None]:
    """Map an error about a parameter of REDIS_URL to a ConfigurationError without the password."""
    try:
        yield
    except (ValueError, TypeError, redis.RedisError) as error:
        raise ConfigurationError(
            f"REDIS_URL is not accepted: {error_text(error, settings.redis_url.get_secret_value())}"
        ) from None


class Pipe:
    """One connection for thousands of packed commands in one write.

    The client connects, authenticates and selects the database. Replies are parsed here, because
    the parser of the client takes some microseconds a reply, and a transaction of 500 events has
    2,000 replies.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._connection: Any = self._pool.get_connection()
        self._reader = hiredis.Reader(replyError=redis.ResponseError)

    def send(self, payload: bytes) -> None:
        """Send packed commands."""
        self._connection.send_packed_command([payload])

    def receive(self, count: int, at_least: int = 1) -> list[Any]:
        """The next `count` replies, in order; an error reply is returned as a redis.ResponseError.

        `at_least`: the least number of bytes of the replies. A transaction has thousands of QUEUED
        replies. Waking for each packet of them costs more than parsing them, because the thread
        that plans the next batch must release the interpreter each time. Raises
        redis.ConnectionError.
        """
        replies: list[Any] = []
        reader, socket_ = self._reader, self._connection._sock
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, at_least)
        while True:
            while len(replies) < count:
                reply = reader.gets()
                if reply is False:
                    break
                replies.append(reply)
            if len(replies) == count:
                return replies
            data = socket_.recv(1 << 18)
            if not data:
                raise redis.ConnectionError("the server closed the connection")
            reader.feed(data)
            if at_least > 1:
                at_least = 1
                socket_.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def close(self) -> None:
        """Disconnect: a connection with unread replies must not be used again."""
        self._connection.disconnect()
        self._pool.release(self._connection)


@contextmanager
def named_errors(what: str) -> Iterator[None]:
    """Map every error of the client to a StoreError whose text names the operation, `what`.

    Raises StoreUnavailable: retry with back-off. Raises StoreMisconfigured or StoreCorrupt: stop
    (store/state/redis_errors.py lists the error codes).
    """
    try:
        yield
    except (redis.InvalidResponse, hiredis.ProtocolError) as error:
        raise StoreMisconfigured(
            f"the server at REDIS_URL does not speak the protocol of Redis (while {what}): "
            f"check host and port"
        ) from error
    except (redis.RedisError, OSError) as error:
        if isinstance(error, redis.RedisError) and is_reply(error):
            raise of_reply(what, error) from error
        raise StoreUnavailable(
            f"Redis did not answer while {what}: {redact(str(error))}; is it up, and is "
            f"REDIS_URL right?"
        ) from error


def watch(pipe: Any, *watched: str) -> None:
    """WATCH these keys: `execute` is False once another client has changed one."""
    pipe.watch(*watched)


def execute(pipe: Any) -> bool:
    """Run a transaction. False: not applied, because another client changed a watched key."""
    try:
        pipe.execute()
    except redis.WatchError:
        return False
    return True


def check_server(client: redis.Redis) -> None:
    """Check that the server is new enough and never evicts keys.

    Raises StoreMisconfigured if not; StoreUnavailable.
    """
    with named_errors("checking the server"):
        info = client.info("server")
        memory = client.info("memory")
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
        raise StoreMisconfigured(
            f"Redis is version {version}; Eddyline needs {MIN_VERSION[0]}.{MIN_VERSION[1]} "
            f"or newer (or Valkey)"
        )
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise StoreMisconfigured(
            f"Redis has maxmemory-policy {policy}, which evicts counted data; set it to "
            "noeviction (CONFIG SET maxmemory-policy noeviction, and in redis.conf)"
        )
