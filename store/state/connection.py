"""Connects to Redis, maps the errors of the client, and checks how the server is configured."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import hiredis
import redis
import redis.asyncio
import structlog

from core.errors import ConfigurationError, StoreMisconfigured, StoreUnavailable
from core.redaction import error_text, redact
from core.settings import Settings
from store.state.keys import Keys
from store.state.servers import address
from store.state.servers.client_connections import MAX_AGE_S
from store.state.servers.cluster import ClusterPool, slot_of
from store.state.servers.redis_errors import (
    closed_handshake,
    is_denied,
    is_reply,
    of_reply,
    refused_handshake,
)

_log = structlog.get_logger(__name__)


class Client(redis.Redis):
    """A client of one shard. It never retries a command: the caller decides by the position whether
    to send it again.
    """

    shard_keys: Keys

    def scan_iter(self, *args: Any, **named: Any) -> Iterator[Any]:
        """As that of redis-py. In a cluster a move of the slot is an error, and no early end.

        SCAN lists what the node has, also without a slot that it lost.
        """
        no_key = self.shard_keys.user("")
        in_cluster = isinstance(self.connection_pool, ClusterPool)
        with self._one_connection() as one:
            if in_cluster:
                one.exists(no_key)  # MOVED or ASK where a part of the slot is elsewhere
            yield from redis.Redis.scan_iter(one, *args, **named)
            if in_cluster:
                one.exists(no_key)

    def hscan_iter(self, *args: Any, **named: Any) -> Iterator[Any]:
        """As that of redis-py."""
        with self._one_connection() as one:
            yield from redis.Redis.hscan_iter(one, *args, **named)

    def zscan_iter(self, *args: Any, **named: Any) -> Iterator[Any]:
        """As that of redis-py."""
        with self._one_connection() as one:
            yield from redis.Redis.zscan_iter(one, *args, **named)

    def _one_connection(self) -> Any:
        """A client of one connection: the cursor of a SCAN means nothing to another server, which
        a new connection may reach after a fail-over.
        """
        return self.client()  # type: ignore[no-untyped-call]


class AsyncClient(redis.asyncio.Redis):
    """As `Client`, for asyncio."""

    shard_keys: Keys


_OK, _QUEUED = b"+OK\r\n", b"+QUEUED\r\n"
MIN_VERSION = (7, 0)
"""Redis 7 or Valkey: listpacks (less memory), and EXEC written to the AOF as one unit."""


def connect(settings: Settings, timeout_s: float | None = None, shard: int = 0) -> Client:
    """A client of a shard at REDIS_URL, which connects on first use. Replies are bytes.

    Shard 0 also has the keys that exist once. `store.state.shards` has the clients of all shards.
    """
    keys = Keys(shard, settings.redis_shards)
    with _refused_url(settings):
        server = address.parse(settings, timeout_s or settings.redis_timeout_s)
        pool = address.make_pool(server, slot_of(keys.tag))
        client = cast("Client", Client.from_pool(pool))
    client.shard_keys = keys
    return client


def connect_async(
    settings: Settings, timeout_s: float | None = None, shard: int = 0
) -> AsyncClient:
    """As `connect`, for asyncio."""
    keys = Keys(shard, settings.redis_shards)
    with _refused_url(settings):
        server = address.parse(settings, timeout_s or settings.redis_timeout_s)
        pool = address.make_pool_async(server, slot_of(keys.tag))
        client = cast("AsyncClient", AsyncClient.from_pool(pool))
    client.shard_keys = keys
    return client


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
        self._until = time.monotonic() + MAX_AGE_S

    @property
    def is_old(self) -> bool:
        """Whether to close it before the next transaction: the server of the name may be another
        one now.
        """
        return time.monotonic() > self._until

    def send(self, payload: bytes) -> None:
        """Send packed commands."""
        self._connection.send_packed_command([payload])

    def receive(self, count: int) -> list[Any]:
        """The next `count` replies, in order; an error reply is returned as a redis.ResponseError.

        Raises redis.ConnectionError.
        """
        replies: list[Any] = []
        reader = self._reader
        while True:
            while len(replies) < count:
                reply = reader.gets()
                if reply is False:
                    break
                replies.append(reply)
            if len(replies) == count:
                return replies
            reader.feed(self._read())

    def receive_transaction(self, commands: int) -> tuple[list[Any], Any]:
        """The replies to MULTI and `commands` commands, and the reply to EXEC after them.

        The former are empty in the usual case, where each command was queued: a transaction has
        thousands of such replies, which are compared as bytes, because to parse them takes longer
        than the rest of a reply. Waking for each packet of them would cost still more: the thread
        that plans the next batch must release the interpreter each time. Raises
        redis.ConnectionError.
        """
        usual = _OK + _QUEUED * commands
        data = self._read(len(usual))
        while len(data) < len(usual) and usual.startswith(data):
            data += self._read()
        if not data.startswith(usual):
            self._reader.feed(data)
            *queued, reply = self.receive(commands + 2)
            return queued, reply
        self._reader.feed(data[len(usual) :])
        return [], self.receive(1)[0]

    def _read(self, at_least: int = 1) -> bytes:
        """Wait for bytes of the server, `at_least` so many where the kernel can count them."""
        connected = self._connection._sock
        # TLS reads a record in several parts, and the kernel would not deliver a part that is
        # shorter than `at_least`: the rest of the record comes only after the timeout
        if at_least > 1 and not isinstance(connected, ssl.SSLSocket):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, at_least)
            data: bytes = connected.recv(1 << 18)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        else:
            data = connected.recv(1 << 18)
        if not data:
            raise redis.ConnectionError("the server closed the connection")
        return data

    def close(self) -> None:
        """Disconnect: a connection with unread replies must not be used again."""
        self._connection.disconnect()
        self._pool.release(self._connection)


@contextmanager
def named_errors(what: str) -> Iterator[None]:
    """Map every error of the client to a StoreError whose text names the operation, `what`.

    Raises StoreUnavailable: retry with back-off. Raises StoreMisconfigured or StoreCorrupt: stop
    (store/state/servers/redis_errors.py lists the error codes).
    """
    try:
        yield
    except (redis.InvalidResponse, hiredis.ProtocolError) as error:
        raise StoreMisconfigured(
            f"the server at REDIS_URL does not speak the protocol of Redis (while {what}): "
            f"check host and port, and whether it needs TLS (rediss://)"
        ) from error
    except (redis.RedisError, OSError) as error:
        if isinstance(error, redis.RedisError) and is_reply(error):
            raise of_reply(what, error) from error
        if cause := refused_handshake(error):
            raise StoreMisconfigured(f"no TLS connection to Redis while {what}: {cause}") from error
        raise StoreUnavailable(
            f"Redis did not answer while {what}: {redact(str(error))}; is it up, and is "
            f"REDIS_URL right (rediss:// for TLS)?{closed_handshake(error)}"
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
    """Check that the server is new enough, never evicts keys, and is a cluster if the URL says so.

    Where INFO is denied, the version is that of HELLO, and a warning says that eviction was not
    checked. Raises StoreMisconfigured if not; StoreUnavailable.
    """
    with named_errors("checking the server"):
        try:
            info: dict[str, Any] = client.info("server") | client.info("memory")
        except redis.ResponseError as error:
            if not is_denied(error):
                raise
            info = {"redis_version": _version_by_hello(client)}
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
        raise StoreMisconfigured(
            f"Redis is version {version}; Eddyline needs {MIN_VERSION[0]}.{MIN_VERSION[1]} "
            f"or newer (or Valkey)"
        )
    mode = info.get("server_mode", info.get("redis_mode", ""))
    if mode == "cluster" and not isinstance(client.connection_pool, ClusterPool):
        raise StoreMisconfigured(
            "the server at REDIS_URL is a node of a cluster: write redis+cluster:// (with TLS "
            "rediss+cluster://) and the hosts of some of its nodes"
        )
    policy = info.get("maxmemory_policy")
    if policy is None:
        _log.warning(
            "eviction_not_checked",
            permission="+info",
            required="maxmemory-policy noeviction",
        )
    elif policy != "noeviction":
        raise StoreMisconfigured(
            f"Redis has maxmemory-policy {policy}, which evicts counted data; set it to "
            "noeviction (CONFIG SET maxmemory-policy noeviction, and in redis.conf)"
        )


def _version_by_hello(client: redis.Redis) -> str:
    reply: Any = client.execute_command("HELLO")  # type: ignore[no-untyped-call]
    fields = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
    version = fields.get(b"version", fields.get("version", b"0"))
    return version.decode() if isinstance(version, bytes) else str(version)
