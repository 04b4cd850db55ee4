"""Connections of redis-py that follow a fail-over, and that check a certificate by another name.

redis-py keeps a connection for as long as it works. A server that was demoted, or that is no longer
behind its host name, answers reads for ever. These connections connect again, and so resolve the
name or ask the sentinels again,

- when they are next taken from the pool after a READONLY reply, or a MOVED reply of a cluster, and
- when they are next taken from the pool MAX_AGE_S after the connect.

They stay open meanwhile, so that a transaction reads all its replies.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio
from redis.asyncio import connection as asyncio_connection
from redis.asyncio import sentinel as asyncio_sentinel
from redis.connection import AbstractConnection
from redis.exceptions import MovedError
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

MAX_AGE_S = 30.0
"""Seconds until a connection is made again; a connect takes about a millisecond."""
ELSEWHERE = ("READONLY", "MOVED")
"""How error replies begin after which a connection is made again."""

if TYPE_CHECKING:
    from redis import Connection as _Sync
    from redis import SSLConnection as _SyncTLS
    from redis.asyncio.connection import Connection as _Async
    from redis.asyncio.connection import SSLConnection as _AsyncTLS
else:
    _Sync = _Async = _SyncTLS = _AsyncTLS = object


class _Following(_Sync):
    """Connects again after a READONLY or MOVED reply, and after MAX_AGE_S."""

    _until = 0.0

    def connect(self) -> Any:
        if self._sock is not None and time.monotonic() > self._until:
            self.disconnect()
        is_new = self._sock is None
        super().connect()  # type: ignore[no-untyped-call]
        if is_new:
            self._until = time.monotonic() + MAX_AGE_S

    def read_response(self, *args: Any, **named: Any) -> Any:
        # not of the parent: that of a connection by Sentinel drops the connection at once, which a
        # transaction with WATCH takes for a changed key, and tries again without a pause
        try:
            return AbstractConnection.read_response(self, *args, **named)
        except (redis.ReadOnlyError, MovedError):
            self._until = 0.0
            raise


class _FollowingAsync(_Async):
    """As `_Following`."""

    _until = 0.0

    async def connect(self) -> None:
        if self._reader is not None and time.monotonic() > self._until:
            await self.disconnect(nowait=True)
        is_new = self._reader is None
        await super().connect()  # type: ignore[no-untyped-call]
        if is_new:
            self._until = time.monotonic() + MAX_AGE_S

    async def read_response(self, *args: Any, **named: Any) -> Any:
        try:
            return await asyncio_connection.AbstractConnection.read_response(self, *args, **named)
        except (redis.ReadOnlyError, MovedError):
            self._until = 0.0
            raise


class _Named(_SyncTLS):
    """Checks the certificate of the server against `server_name`, if that is not empty."""

    host: str

    def __init__(self, *, server_name: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._server_name = server_name

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        host = self.host
        try:
            self.host = self._server_name or host
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        finally:
            self.host = host


class _NamedAsync(_AsyncTLS):
    """As `_Named`."""

    def __init__(self, *, server_name: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._server_name = server_name

    def _connection_arguments(self) -> Any:
        arguments = dict(super()._connection_arguments())
        return arguments | ({"server_hostname": self._server_name} if self._server_name else {})


class Plain(_Following, redis.Connection):
    """TCP."""


class TLS(_Following, _Named, redis.SSLConnection):
    """TLS."""


class SentinelPlain(_Following, SentinelManagedConnection):
    """TCP to the primary that the sentinels name."""


class SentinelTLS(_Following, _Named, SentinelManagedSSLConnection):
    """TLS to the primary that the sentinels name."""


class PlainAsync(_FollowingAsync, asyncio_connection.Connection):
    """TCP, for asyncio."""


class TLSAsync(_FollowingAsync, _NamedAsync, asyncio_connection.SSLConnection):
    """TLS, for asyncio."""


class SentinelPlainAsync(_FollowingAsync, asyncio_sentinel.SentinelManagedConnection):
    """TCP to the primary that the sentinels name, for asyncio."""


class SentinelTLSAsync(_FollowingAsync, _NamedAsync, asyncio_sentinel.SentinelManagedSSLConnection):
    """TLS to the primary that the sentinels name, for asyncio."""
