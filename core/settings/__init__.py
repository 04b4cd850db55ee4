"""Reads every setting of Eddyline from the environment and `.env`.

Each module here declares one group of settings with its validators; `Settings` has them all. A
function that needs one group names that group as its parameter's type. `python -m core.settings`
prints each name with its value, unit and meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from core import experiments, redaction
from core.errors import ConfigurationError
from core.experiments import Experiments
from core.settings.als import ALSSettings, SparkSettings
from core.settings.api import APISettings
from core.settings.files import FileSettings
from core.settings.kafka import KafkaSettings
from core.settings.kafka_security import KafkaSecuritySettings
from core.settings.logs import LogSettings
from core.settings.redis import RedisSettings
from core.settings.router import RouterSettings
from core.settings.secret_files import SecretFiles
from core.settings.streams import ContractSettings, IngestSettings, LiveSettings
from core.settings.training import TrainingSettings
from core.settings.two_tower import TwoTowerSettings

GROUPS: tuple[type[BaseModel], ...] = (
    KafkaSettings,
    KafkaSecuritySettings,
    RedisSettings,
    ContractSettings,
    IngestSettings,
    LiveSettings,
    FileSettings,
    RouterSettings,
    ALSSettings,
    SparkSettings,
    TwoTowerSettings,
    TrainingSettings,
    APISettings,
    LogSettings,
)
"""The groups, in the order in which they are printed."""


class Settings(
    KafkaSettings,
    KafkaSecuritySettings,
    RedisSettings,
    ContractSettings,
    IngestSettings,
    LiveSettings,
    FileSettings,
    RouterSettings,
    ALSSettings,
    SparkSettings,
    TwoTowerSettings,
    TrainingSettings,
    APISettings,
    LogSettings,
    BaseSettings,
):
    """All settings; the name of a field in upper case is its environment variable."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        str_strip_whitespace=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - of the library
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then `.env`, then the files that NAME_FILE names."""
        return init_settings, env_settings, dotenv_settings, SecretFiles(settings_cls)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: dict[str, object]) -> dict[str, object]:
        """An empty variable means unset."""
        return {name: value for name, value in values.items() if value != ""}

    @model_validator(mode="after")
    def _partitions_fit_shards(self) -> Self:
        if self.topic_partitions % self.redis_shards:
            raise ValueError(
                f"TOPIC_PARTITIONS={self.topic_partitions} must be a multiple of "
                f"REDIS_SHARDS={self.redis_shards}: the users of a partition are in one shard"
            )
        return self

    @property
    def secrets(self) -> list[str]:
        """Values that no output may show: passwords, also those in URLs, and keys of the API."""
        keys = self.api_keys | self.api_read_keys | self.api_admin_keys
        urls = (self.redis_url.get_secret_value(), self.archive_url)
        values = [
            self.kafka_sasl_password,
            self.kafka_oauth_client_secret,
            self.kafka_ssl_key_password,
            self.redis_sentinel_password,
            self.redis_ssl_key_password,
            *(value for name, value in self.kafka_extra.items() if _is_secret_property(name)),
            *keys,
        ]
        return [secret for url in urls for secret in redaction.secrets_of(url)] + [
            text for value in values if (text := value.get_secret_value())
        ]

    @cached_property
    def experiments(self) -> Experiments:
        """The experiments, with checked overrides. Raises ConfigurationError."""
        loaded = experiments.load(self.experiments_path, self.use_cases)
        for variant in loaded.by_id.values():
            try:
                self.with_overrides(variant.overrides)
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"{self.experiments_path}: variant {variant.label}: {error}"
                ) from None
        return loaded

    def with_overrides(self, overrides: Mapping[str, Any]) -> Settings:
        """A copy of these settings in which `overrides` (by field name) replace values.

        A field that is unset here and not overridden is unset in the copy. Thresholds that are
        overridden apply whatever the bundle prefers. Raises ConfigurationError.
        """
        if not {"cold_start_threshold", "warm_user_threshold"}.isdisjoint(overrides):
            overrides = {"router": "fixed", **overrides}
        try:
            return Settings(
                **{
                    "_env_file": None,
                    **{name: getattr(self, name) for name in self.model_fields_set},
                    **overrides,
                }
            )
        except ValidationError as error:
            raise ConfigurationError(_problems(error)) from None


class _Defaults(Settings):
    """Settings that read neither the environment nor a file."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - of the library
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments only."""
        return (init_settings,)


def defaults() -> Settings:
    """Every setting at its default, whatever the environment and `.env` say."""
    return _Defaults()


def load() -> Settings:
    """Read the settings of this process, and mask their secrets in logs and tracebacks.

    Raises ConfigurationError with one line that names every wrong setting.
    """
    try:
        loaded = Settings()
    except ValidationError as error:
        raise ConfigurationError(_problems(error)) from None
    redaction.register(loaded.secrets)
    return loaded


def _is_secret_property(name: str) -> bool:
    """Whether a librdkafka property of this name holds a secret."""
    return any(word in name for word in ("password", "secret", "jaas", "pem", "token.value"))


_WORDS = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be below {lt:g}",
    "literal_error": "must be {expected}",
}
"""Kind of problem in pydantic -> what it means to people."""


def _problems(error: ValidationError) -> str:
    """One sentence for each problem; the values are not shown, since some are secret."""
    texts = []
    for problem in error.errors():
        name = "_".join(str(part) for part in problem["loc"]).upper() or "settings"
        words = _WORDS.get(problem["type"])
        if words is not None:
            texts.append(f"{name} {words.format(**problem.get('ctx', {}))}")
        else:
            texts.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(texts)


def rows(settings: Settings | None = None) -> list[tuple[str, str, str]]:
    """Name, value and meaning of every setting, group by group.

    Keys and passwords are masked. `settings` None: the values are the defaults.
    """
    return [
        (
            name.upper(),
            _text(name, field.default if settings is None else getattr(settings, name)),
            field.description or "",
        )
        for group in GROUPS
        for name, field in group.model_fields.items()
    ]


def _text(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, frozenset | tuple):
        return ",".join(str(entry) for entry in value)  # keys are masked
    if isinstance(value, dict):
        return ",".join(f"{key}={text}" for key, text in value.items())  # masked
    if isinstance(value, SecretStr) and name != "redis_url":
        return str(value)  # masked
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return redaction.masked_url(text)
