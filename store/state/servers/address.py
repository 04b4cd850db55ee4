"""Makes the pool of connections to what REDIS_URL names: a server, sentinels or a cluster."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
from redis import sentinel
from redis.asyncio import sentinel as asyncio_sentinel
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from core.errors import ConfigurationError
from core.settings import Settings
from store.state.servers import client_connections as connections
from store.state.servers.cluster import ClusterPool, ClusterPoolAsync, Node, Topology, TopologyAsync

SENTINEL_PORT = 26379
PORT = 6379
_SENTINEL, _CLUSTER = "+sentinel", "+cluster"


@dataclass(frozen=True)
class Address:
    """What REDIS_URL and the settings beside it say."""

    options: dict[str, Any]
    """Arguments of redis-py's connection, but `connection_class`."""
    tls: bool
    sentinels: tuple[Node, ...] = ()
    """Host and port of each; none: the server itself is named."""
    nodes: tuple[Node, ...] = ()
    """Host and port of some nodes of a cluster; none: it is no cluster."""
    service: str = ""
    """Name of the primary among the sentinels."""
    sentinel_login: tuple[str, str] = ("", "")
    """User and password of the sentinels."""


def parse(settings: Settings, timeout_s: float) -> Address:
    """The address in the settings. Raises ConfigurationError: a certificate cannot be read."""
    url = settings.redis_url.get_secret_value()
    scheme, _, _ = url.partition("://")
    sentinels: tuple[Node, ...] = ()
    nodes: tuple[Node, ...] = ()
    service = ""
    if scheme.endswith((_SENTINEL, _CLUSTER)):
        parts = urlsplit(url)
        login, at, names = parts.netloc.rpartition("@")
        hosts = names.split(",")
        database = ""
        if scheme.endswith(_CLUSTER):
            nodes = tuple(_host_and_port(host, PORT) for host in hosts)
        else:
            sentinels = tuple(_host_and_port(host, SENTINEL_PORT) for host in hosts)
            service, _, database = parts.path.strip("/").partition("/")
        scheme = scheme.partition("+")[0]
        url = f"{scheme}://{login}{at}unused/{database or 0}?{parts.query}"
    options = parse_url(url)  # type: ignore[no-untyped-call]
    options.pop("connection_class", None)
    options = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s} | options
    if scheme == "rediss":
        options = _tls(settings) | options
    if sentinels or nodes:
        del options["host"]
    login_of_sentinels = (
        settings.redis_sentinel_username,
        settings.redis_sentinel_password.get_secret_value(),
    )
    return Address(
        options, scheme == "rediss", sentinels, nodes, unquote(service), login_of_sentinels
    )


def make_pool(address: Address, slot: int = 0) -> redis.ConnectionPool:
    """Connections that never retry. `slot`: of the keys, where it is a cluster."""
    options = address.options | {"retry": Retry(NoBackoff(), 0)}
    if "path" in options:
        return redis.ConnectionPool(connection_class=redis.UnixDomainSocketConnection, **options)
    if address.nodes:
        topology = Topology(address.nodes, address.tls, options)
        return ClusterPool(topology, slot, address.tls, **options)
    plain = connections.TLS if address.tls else connections.Plain
    if not address.sentinels:
        return redis.ConnectionPool(connection_class=plain, **options)
    manager = _Sentinels([])  # type: ignore[no-untyped-call]
    manager.sentinels = [
        redis.Redis.from_pool(
            redis.ConnectionPool(
                connection_class=plain, host=host, port=port, **_sentinel_options(address, options)
            )
        )
        for host, port in address.sentinels
    ]
    by_sentinel = connections.SentinelTLS if address.tls else connections.SentinelPlain
    pool: redis.ConnectionPool = _SentinelPool(  # type: ignore[no-untyped-call]
        address.service, manager, connection_class=by_sentinel, **options
    )
    return pool


def make_pool_async(address: Address, slot: int = 0) -> redis.asyncio.ConnectionPool:
    """As `make_pool`, for asyncio."""
    options = address.options | {"retry": redis.asyncio.retry.Retry(NoBackoff(), 0)}
    if "path" in options:
        return redis.asyncio.ConnectionPool(
            connection_class=redis.asyncio.UnixDomainSocketConnection, **options
        )
    if address.nodes:
        topology = TopologyAsync(address.nodes, address.tls, options)
        return ClusterPoolAsync(topology, slot, address.tls, **options)
    plain = connections.TLSAsync if address.tls else connections.PlainAsync
    if not address.sentinels:
        return redis.asyncio.ConnectionPool(connection_class=plain, **options)
    manager = _SentinelsAsync([])  # type: ignore[no-untyped-call]
    manager.sentinels = [
        redis.asyncio.Redis.from_pool(
            redis.asyncio.ConnectionPool(
                connection_class=plain, host=host, port=port, **_sentinel_options(address, options)
            )
        )
        for host, port in address.sentinels
    ]
    by_sentinel = connections.SentinelTLSAsync if address.tls else connections.SentinelPlainAsync
    pool: redis.asyncio.ConnectionPool = _SentinelPoolAsync(  # type: ignore[no-untyped-call]
        address.service, manager, connection_class=by_sentinel, **options
    )
    return pool


class _Sentinels(sentinel.Sentinel):
    """Names the cause when no sentinel answers; redis-py names only the type of the error."""

    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except sentinel.MasterNotFoundError:
            errors = []
            for server in self.sentinels:
                try:
                    server.ping()
                except redis.RedisError as error:
                    errors.append(error)
            _raise_cause(service_name, errors, len(self.sentinels))


class _SentinelsAsync(asyncio_sentinel.Sentinel):
    """As `_Sentinels`."""

    async def discover_master(self, service_name: str) -> Any:
        try:
            return await super().discover_master(service_name)
        except asyncio_sentinel.MasterNotFoundError:
            errors = []
            for server in self.sentinels:
                try:
                    await server.ping()
                except redis.RedisError as error:
                    errors.append(error)
            _raise_cause(service_name, errors, len(self.sentinels))


class _SentinelPool(sentinel.SentinelConnectionPool):
    """Closes the connections to the sentinels with its own."""

    def close(self) -> None:
        super().close()
        self.sentinel_manager.close()


class _SentinelPoolAsync(asyncio_sentinel.SentinelConnectionPool):
    """As `_SentinelPool`."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()


def _raise_cause(service: str, errors: list[redis.RedisError], sentinels: int) -> None:
    if len(errors) == sentinels:
        raise errors[0]
    raise redis.ConnectionError(f"the sentinels know no primary that is up of {service!r}")


def _sentinel_options(address: Address, options: dict[str, Any]) -> dict[str, Any]:
    """The options of the server, but with the login of the sentinels and without its database."""
    user, password = address.sentinel_login
    ours = {name: value for name, value in options.items() if name not in ("db", "server_name")}
    return ours | {"username": user or None, "password": password or None}


def _host_and_port(text: str, port: int) -> Node:
    parts = urlsplit(f"redis://{text}")
    return parts.hostname or "", parts.port or port


def _tls(settings: Settings) -> dict[str, Any]:
    """Arguments of redis-py's TLS connection. Raises ConfigurationError."""
    password = settings.redis_ssl_key_password.get_secret_value() or None
    try:
        context = ssl.create_default_context(cafile=settings.redis_ssl_ca)
        if settings.redis_ssl_certificate:
            context.load_cert_chain(
                settings.redis_ssl_certificate, settings.redis_ssl_key, lambda: password or ""
            )
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"a certificate file of Redis cannot be read: {error.strerror or error}; check "
            "REDIS_SSL_CA, REDIS_SSL_CERTIFICATE, REDIS_SSL_KEY and REDIS_SSL_KEY_PASSWORD"
        ) from None
    files = {
        "ssl_ca_certs": settings.redis_ssl_ca,
        "ssl_certfile": settings.redis_ssl_certificate,
        "ssl_keyfile": settings.redis_ssl_key,
    }
    return {name: str(path) for name, path in files.items() if path is not None} | {
        "ssl_password": password,
        "ssl_check_hostname": settings.redis_ssl_check_hostname,
        "server_name": settings.redis_ssl_server_name,
    }
