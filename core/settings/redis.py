"""Settings of the state in Redis."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr, field_validator

from core import redaction


class RedisSettings(BaseModel, frozen=True):
    """Where Redis is, and how much of a user it keeps."""

    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="redis:// or rediss:// URL, password included",
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
