"""Settings of the HTTP API: address, keys, limits and timeouts."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

_ROOT_PATH = re.compile(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+")


class APISettings(BaseModel, frozen=True):
    """Where the API listens, who may use it, and how much of it."""

    api_host: str = Field(
        "127.0.0.1",
        description=(
            "address that the API binds to; the default accepts connections of this machine only"
        ),
    )
    api_port: int = Field(8000, ge=0, le=65535, description="port of the API; 0 picks a free one")
    api_workers: int = Field(
        1,
        ge=1,
        le=256,
        description=(
            "processes that answer at API_PORT, each with its own catalogue in memory and its own "
            "limits of connections and rates; about one for each core"
        ),
    )
    api_root_path: str = Field(
        "",
        description=(
            "prefix of every URL as clients see it, such as /reco behind a proxy; the proxy may "
            "remove it or pass it on"
        ),
    )
    api_cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description=(
            "comma-separated origins (https://shop.example) whose pages may call the API in a "
            "browser; *: every origin; unset: none"
        ),
    )
    api_gzip_bytes: int = Field(
        16_384,
        ge=0,
        description=(
            "bytes from which an answer is compressed for a client that accepts gzip; 0: never"
        ),
    )
    api_keys: Annotated[frozenset[SecretStr], NoDecode] = Field(
        frozenset(),
        description=("comma-separated keys that may write and delete; unset: writes are refused"),
    )
    api_read_keys: Annotated[frozenset[SecretStr], NoDecode] = Field(
        frozenset(),
        description="comma-separated keys that may read; unset: everybody may read",
    )
    api_admin_keys: Annotated[frozenset[SecretStr], NoDecode] = Field(
        frozenset(),
        description=(
            "comma-separated keys that may promote, roll back and request retrains; unset: "
            "nobody may"
        ),
    )
    api_max_limit: int = Field(
        100,
        ge=1,
        le=10_000,
        description="maximum recommendations in one answer",
    )
    api_max_body_bytes: int = Field(
        1_048_576,
        ge=1024,
        description="maximum bytes of a request body",
    )
    api_timeout_s: float = Field(
        5.0,
        gt=0,
        description=(
            "seconds after which a request is answered with 503, or with 408 while its body "
            "is incomplete; a write waits for the broker for nine tenths of this time"
        ),
    )
    api_max_head_bytes: int = Field(
        65_536,
        ge=1024,
        description=(
            "maximum bytes of a request head (request line and headers); above it the answer "
            "is 431 or 414"
        ),
    )
    api_max_headers: int = Field(
        100,
        ge=10,
        description="maximum headers of a request; above it the answer is 431",
    )
    api_head_timeout_s: float = Field(
        10.0,
        gt=0,
        description=(
            "seconds in which a whole request head must arrive, counted from connecting or "
            "from its first byte; else 408"
        ),
    )
    api_idle_timeout_s: float = Field(
        75.0,
        gt=0,
        description=(
            "seconds without a new request after which a connection is closed; longer than "
            "the timeout of a proxy in front"
        ),
    )
    api_write_timeout_s: float = Field(
        10.0,
        gt=0,
        description=(
            "seconds after which the connection of a client that does not read its answers is "
            "closed"
        ),
    )
    api_max_connections: int = Field(
        1000,
        ge=1,
        description=(
            "maximum open connections; at the limit the connection that is idle for longest "
            "is closed, and if none is idle, a new one gets 503"
        ),
    )
    api_max_connections_per_address: int = Field(
        0,
        ge=0,
        description=(
            "maximum open connections of one address, above which a new one gets 429; 0: no "
            "limit, as behind a proxy"
        ),
    )
    api_expensive_waiting: int = Field(
        4,
        ge=0,
        description=(
            "maximum requests that wait while one request of the same expensive route "
            "(docs/security.md) runs; one more gets 429"
        ),
    )
    api_rate_per_s: float = Field(
        0.0,
        ge=0,
        description=(
            "maximum requests a second per key, or per address without a key; above it the "
            "answer is 429; 0: no limit"
        ),
    )
    api_rate_burst: int = Field(
        20,
        ge=1,
        description="maximum requests of one key or address at once within API_RATE_PER_S",
    )
    api_after_s: float = Field(
        1.0,
        gt=0,
        le=60,
        description=(
            "seconds that a read with `after` waits for that event before it answers `stale`; "
            "at most nine tenths of API_TIMEOUT_S"
        ),
    )
    api_redis_timeout_s: float = Field(
        0.25,
        gt=0,
        description="seconds that a read waits for Redis before it answers `degraded`",
    )
    api_live_listeners: int = Field(
        100,
        ge=0,
        description=(
            "maximum pages that listen to one process for what happens now (GET /api/live); one "
            "more gets 429"
        ),
    )
    api_probe_s: float = Field(
        1.0,
        ge=0,
        le=3600,
        description=(
            "seconds between two measurements of the time from a write to an answer, while a page "
            "shows it: the API writes the profile of the reserved user `eddyline-probe`, if it has "
            "API_KEYS; 0: never"
        ),
    )
    refresh_s: float = Field(
        0.5,
        gt=0,
        description=(
            "seconds between two checks for a changed catalogue, popularity or bundle pointer"
        ),
    )

    @field_validator(
        "api_keys", "api_read_keys", "api_admin_keys", "api_cors_origins", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [entry.strip() for entry in value.split(",") if entry.strip()]

    @field_validator("api_root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        path = value.strip("/")
        if not path:
            return ""
        if not _ROOT_PATH.fullmatch(path):
            raise ValueError(f"{value!r} is not a path such as /reco (letters, digits, . _ ~ - /)")
        return f"/{path}"

    @field_validator("api_cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin: scheme://host[:port], without a path"
                )
        return value
