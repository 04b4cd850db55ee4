"""Settings of the state in Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from core import redaction


class RedisSettings(BaseModel, frozen=True):
    """Where Redis is, and how much of a user it keeps."""

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description=(
            "redis:// or rediss:// URL, password included; for Sentinel "
            "redis+sentinel://[user:password@]host1,host2/service or rediss+sentinel://; for a "
            "cluster redis+cluster://[user:password@]host1,host2 or rediss+cluster://"
        ),
    )
    redis_shards: int = Field(
        1,
        ge=1,
        le=1024,
        description=(
            "parts into which users are divided, each of which may be on another node of a "
            "cluster; the partitions of the topics of interactions and users must be a multiple "
            "of it. To change it, rebuild"
        ),
    )
    redis_sentinel_username: str = Field("", description="user of the sentinels, if they need one")
    redis_sentinel_password: SecretStr = Field(
        SecretStr(""),
        description="password of the sentinels; or REDIS_SENTINEL_PASSWORD_FILE",
    )
    redis_ssl_ca: Path | None = Field(
        None, description="PEM file of the authorities to trust; unset: those of the system"
    )
    redis_ssl_certificate: Path | None = Field(
        None, description="PEM file of the client's certificate, for servers that ask for one"
    )
    redis_ssl_key: Path | None = Field(None, description="PEM file of the key of that certificate")
    redis_ssl_key_password: SecretStr = Field(
        SecretStr(""), description="password of the key; or REDIS_SSL_KEY_PASSWORD_FILE"
    )
    redis_ssl_check_hostname: bool = Field(
        True, description="whether the server's certificate must name its host"
    )
    redis_ssl_server_name: str = Field(
        "",
        description=(
            "name in the server's certificate, for a server that is reached by another one; "
            "empty: the host of REDIS_URL"
        ),
    )
    redis_timeout_s: float = Field(
        5.0,
        gt=0,
        description="seconds that a writer waits for one answer of Redis",
    )
    history_cap: int = Field(
        500,
        ge=50,
        le=100_000,
        description=(
            "maximum events in the history of a user; bounds the memory per user and the cost "
            "of a fold-in; the Two-Tower user tower reads the latest 50"
        ),
    )
    user_idle_days: int = Field(
        0,
        ge=0,
        le=36_500,
        description=(
            "days without an event after which `streams expire` moves a user out of Redis; the "
            "events stay in the archive, from which a user who returns is restored; 0: never"
        ),
    )
    deletion_salt: SecretStr = Field(
        SecretStr(""),
        description=(
            "secret text in the hashes that replace the ids of deleted users and items; set "
            "it before the first event, it must not change later"
        ),
    )

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr) -> SecretStr:
        redaction.check_redis_url(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _cluster_has_shards(self) -> Self:
        scheme = self.redis_url.get_secret_value().partition("://")[0]
        if scheme.endswith("+cluster") and self.redis_shards == 1:
            raise ValueError(
                "REDIS_SHARDS: a cluster (REDIS_URL=redis+cluster://...) needs at least 2 shards; "
                "16 serve most installations, more than ever are nodes"
            )
        return self

    @model_validator(mode="after")
    def _certificates_exist(self) -> Self:
        for name in ("redis_ssl_ca", "redis_ssl_certificate", "redis_ssl_key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name.upper()}: {path} is no file")
        return self
