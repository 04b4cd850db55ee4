"""Every setting of Eddyline, read from the environment and `.env`. One class, so that one page
tells them all.

`python -m core.settings` prints each name with its value, unit and meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core import experiments, redaction, use_cases
from core.errors import ConfigurationError
from core.experiments import Experiments
from core.types import Fusion
from core.use_cases import UseCases


class Settings(BaseSettings):
    """Names are environment variables in upper case (`kafka_bootstrap_servers` is
    KAFKA_BOOTSTRAP_SERVERS).
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        str_strip_whitespace=True,
        hide_input_in_errors=True,
    )

    # Kafka
    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="host:port of the brokers, comma-separated"
    )
    interactions_topic: str = Field(
        "interactions", description="topic that backends publish events to"
    )
    items_topic: str = Field("items", description="compacted topic of catalogue items")
    users_topic: str = Field("users", description="compacted topic of what users declare")
    topic_partitions: int = Field(
        4,
        ge=1,
        le=1000,
        description=(
            "partitions of a topic that Eddyline creates; a partition is the unit of "
            "parallelism and of atomicity; a topic that exists keeps its own number"
        ),
    )
    topic_replication: int = Field(
        1, ge=1, le=10, description="replicas of a topic that Eddyline creates; 3 in production"
    )
    ingest_group: str = Field(
        "eddyline-ingest",
        description="consumer group that shares the partitions among ingest processes",
    )
    archive_group: str = Field("eddyline-archive", description="the same for archive processes")
    model_updates_topic: str = Field(
        "model-updates", description="topic on which ingest names the users and items that changed"
    )
    retrain_requests_topic: str = Field(
        "retrain-requests", description="topic on which retrains are asked for"
    )
    live_group: str = Field(
        "eddyline-live",
        description="consumer group that shares the model updates among live workers",
    )
    trainer_group: str = Field(
        "eddyline-trainer", description="the same for retrain requests among training workers"
    )
    kafka_timeout_s: float = Field(
        10.0, gt=0, description="seconds to wait for the broker before a clear error"
    )
    start_timeout_s: float = Field(
        60.0,
        ge=0,
        description=(
            "seconds that a starting process waits for Kafka and Redis before it ends with an "
            "error; the API starts without"
        ),
    )
    session_timeout_s: float = Field(
        10.0,
        ge=6,
        le=1800,
        description="seconds without a heartbeat after which a consumer's partitions go to another one",
    )

    # Redis
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="redis:// or rediss:// URL, password included",
    )
    redis_timeout_s: float = Field(
        5.0, gt=0, description="seconds that a writer waits for one answer of Redis"
    )
    history_cap: int = Field(
        500,
        ge=50,
        le=100_000,
        description=(
            "latest events kept in a user's history; bounds memory a user and the cost of a "
            "fold-in; 50 is what the Two-Tower user tower reads"
        ),
    )

    deletion_salt: SecretStr = Field(
        SecretStr(""),
        description=(
            "secret text in the hashes that stand for the ids of deleted users and items; "
            "choose it before the first event, it cannot be changed later"
        ),
    )

    # Ingest
    dedup_window: int = Field(
        100_000,
        ge=0,
        description=(
            "offsets of a partition within which an event_id counts once; about 150 bytes each "
            "in ingest's memory"
        ),
    )
    transaction_events: int = Field(
        500,
        ge=1,
        le=10_000,
        description="most events in one Redis transaction: 500 hold Redis for about 3 ms",
    )
    poll_events: int = Field(4000, ge=1, description="most events taken from the broker at once")
    popularity_half_life_days: float = Field(
        30.0,
        ge=10,
        le=3650,
        description=(
            "days in which a popularity counts half; at least 10, so that scores from 1970 to "
            "2100 fit a float64"
        ),
    )

    # Live model plane
    live_batch_users: int = Field(
        500, ge=1, le=10_000, description="most users that a live worker folds in at once"
    )
    young_items: int = Field(
        10_000,
        ge=0,
        le=1_000_000,
        description=(
            "most items, unknown to the bundle, that get ALS factors from the users who "
            "touched them; the least recently touched go first"
        ),
    )
    young_item_users: int = Field(
        200,
        ge=1,
        le=10_000,
        description="most users, those of largest weight, that a new item's factors are made from",
    )

    # Files
    archive_url: str = Field(
        "data/archive", repr=False, description="folder (or s3:// URL) of the Parquet archive"
    )
    archive_file_events: int = Field(200_000, ge=1, description="most events in one archive file")
    archive_file_s: float = Field(
        30.0,
        gt=0,
        description="seconds after which an archive file is finished even if it is small",
    )
    models_path: Path = Field(
        Path("models/artifacts"), description="folder of the published bundles"
    )
    als_model_path: Path | None = Field(
        None, description="folder of an ALS part that overrides the bundle's"
    )
    two_tower_model_path: Path | None = Field(
        None, description="folder of a Two-Tower part that overrides the bundle's"
    )
    use_cases_path: Path | None = Field(
        None, description="TOML file of event types and use cases; unset: the built-in marketplace"
    )
    experiments_path: Path | None = Field(
        None,
        description="TOML file of A/B experiments, the same for the API and ingest; unset: none",
    )
    experiment_users: int = Field(
        1_000_000,
        ge=1,
        description=(
            "most users of a variant whose answers are noted; about 100 bytes each, who comes "
            "later is left out of the report"
        ),
    )

    # Engines and router
    enable_als: bool = Field(
        True, description="false: ALS is skipped, and the next engine of the chain answers"
    )
    enable_two_tower: bool = Field(True, description="false: Two-Tower is skipped")
    enable_ensemble: bool = Field(True, description="false: the ensemble is skipped")
    cold_start_threshold: int = Field(
        5, ge=0, description="interactions below which a user is cold: content-based"
    )
    warm_user_threshold: int = Field(
        20, ge=0, description="interactions from which a user is hot: the ensemble"
    )
    content_popularity_share: float = Field(
        0.5,
        ge=0,
        lt=1,
        description=(
            "share of popularity in a content-based score, among the items that match; 0: "
            "likeness alone"
        ),
    )
    ensemble_als_weight: float = Field(
        0.6, ge=0, le=1000, description="weight of ALS in the ensemble; ratios count"
    )
    ensemble_two_tower_weight: float = Field(
        0.4, ge=0, le=1000, description="weight of Two-Tower in the ensemble"
    )
    ensemble_fusion: Fusion = Field(
        "min_max",
        description=(
            "how the ensemble puts its parts' scores on one scale: min_max, or rank "
            "(reciprocal rank fusion)"
        ),
    )
    diversity: float = Field(
        0.0,
        ge=0,
        le=1,
        description="how much a list avoids being more of the same, where a read does not say; 0: off",
    )
    explore: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of places given to new items by lot, where a read does not say; 0: off",
    )
    new_item_days: float = Field(
        14.0,
        ge=0,
        le=3650,
        description=(
            "days for which an item is new; one that came after the model, and has been "
            "touched since, always is"
        ),
    )

    # ALS and training
    als_factors: int = Field(128, ge=1, le=2048, description="length of a factor vector")
    als_regularization: float = Field(0.01, ge=0, description="L2 penalty on the factors")
    als_iterations: int = Field(20, ge=1, description="alternating sweeps")
    als_alpha: float = Field(
        40.0, gt=0, description="confidence of an interaction is alpha times its weight"
    )
    als_popularity_discount: float = Field(
        0.0,
        ge=0,
        le=1,
        description=(
            "exponent by which an interaction counts less, the more users took the item; 0: "
            "all count alike"
        ),
    )
    two_tower_dimension: int = Field(
        64,
        ge=2,
        le=1024,
        description=(
            "length of an item's and a user's vector in Two-Tower; a multiple of TWO_TOWER_HEADS"
        ),
    )
    two_tower_layers: int = Field(2, ge=1, le=8, description="transformer layers of the user tower")
    two_tower_heads: int = Field(2, ge=1, le=16, description="attention heads of each layer")
    two_tower_history: int = Field(
        50, ge=1, le=500, description="latest events that the user tower reads"
    )
    two_tower_dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of activations dropped in training; 0.5 suits sparse data",
    )
    two_tower_id_dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description=(
            "share of items whose id is hidden in a training step, so that content alone can "
            "stand for a new item"
        ),
    )
    two_tower_learning_rate: float = Field(
        0.002, gt=0, le=1, description="step size of Adam in the first epoch; it shrinks with each"
    )
    two_tower_epochs: int = Field(15, ge=1, le=10_000, description="most passes over the events")
    two_tower_patience: int = Field(
        4,
        ge=1,
        description="epochs without a better NDCG@10 on held-out last items, after which training stops",
    )
    two_tower_candidates: int = Field(
        2048,
        ge=16,
        le=1_000_000,
        description=(
            "items ranked in a training step: the whole catalogue up to that many, else a "
            "sample with correction"
        ),
    )
    two_tower_seconds: float = Field(
        900.0,
        gt=0,
        description="seconds after which Two-Tower training stops with the best epoch so far",
    )
    training_seed: int = Field(
        42, ge=0, description="seed of everything random in training; recorded in the bundle"
    )
    holdout_fraction: float = Field(
        0.1, gt=0, lt=1, description="last part of the events, by time, that evaluation ranks"
    )
    gate_margin: float = Field(
        0.05,
        ge=0,
        le=1,
        description=(
            "a retrain is refused when its NDCG@10 is lower than the live bundle's by more "
            "than this fraction"
        ),
    )
    keep_bundles: int = Field(
        5, ge=1, description="bundles kept when old ones are pruned; the live one always is"
    )
    training_lease_s: float = Field(
        60.0, ge=5, description="seconds after which a killed trainer's lease is free"
    )

    retrain_schedule: str = Field(
        "auto",
        description=(
            "when live workers ask for a retrain: weekly, biweekly, monthly, auto (by event "
            "volume), off, or five fields of cron in UTC"
        ),
    )

    # API
    api_host: str = Field(
        "127.0.0.1", description="address that the API binds to; loopback unless you say otherwise"
    )
    api_port: int = Field(8000, ge=0, le=65535, description="port of the API; 0 picks a free one")
    api_keys: Annotated[frozenset[SecretStr], NoDecode] = Field(
        frozenset(),
        description="comma-separated keys that may write and delete; with none set, writes are refused",
    )
    api_read_keys: Annotated[frozenset[SecretStr], NoDecode] = Field(
        frozenset(), description="comma-separated keys that may read; with none set, reads are open"
    )
    api_admin_keys: Annotated[frozenset[SecretStr], NoDecode] = Field(
        frozenset(),
        description=(
            "comma-separated keys that may promote, roll back and ask for retrains; with none "
            "set, nobody may"
        ),
    )
    api_max_limit: int = Field(
        100, ge=1, le=10_000, description="most recommendations in one answer"
    )
    api_max_body_bytes: int = Field(
        1_048_576, ge=1024, description="largest accepted request body, in bytes"
    )
    api_timeout_s: float = Field(
        5.0,
        gt=0,
        description=(
            "seconds after which a request is answered with 503, or with 408 when its body is "
            "not there yet; a write waits for the broker for nine tenths of it"
        ),
    )
    api_max_head_bytes: int = Field(
        65_536,
        ge=1024,
        description=(
            "bytes of a request's head (request line and headers), above which it is answered "
            "with 431 or 414"
        ),
    )
    api_max_headers: int = Field(
        100, ge=10, description="headers of a request, above which it is answered with 431"
    )
    api_head_timeout_s: float = Field(
        10.0,
        gt=0,
        description=(
            "seconds in which a whole request head must arrive, from its first byte or from "
            "connecting; else 408"
        ),
    )
    api_idle_timeout_s: float = Field(
        75.0,
        gt=0,
        description=(
            "seconds after an answer without a new request, after which a connection is "
            "closed; longer than a proxy's own"
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
            "connections held at once; at the limit the one that has waited longest for a "
            "request is closed, and if none waits, a new one gets 503"
        ),
    )
    api_max_connections_per_address: int = Field(
        0,
        ge=0,
        description=(
            "connections held at once from one address, above which a new one gets 429; 0: no "
            "limit, as behind a proxy"
        ),
    )
    api_expensive_waiting: int = Field(
        4,
        ge=0,
        description=(
            "requests of one expensive route (docs/security.md) that may wait while one is at "
            "work; one more gets 429"
        ),
    )
    api_rate_per_s: float = Field(
        0.0,
        ge=0,
        description=(
            "requests a second by key, or by address without a key, above which a request gets "
            "429; 0: no limit"
        ),
    )
    api_rate_burst: int = Field(
        20,
        ge=1,
        description="requests of one key or address that may come at once within API_RATE_PER_S",
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
        0.25, gt=0, description="seconds that a read waits for Redis before it answers degraded"
    )
    refresh_s: float = Field(
        0.5,
        gt=0,
        description="seconds between looks at catalogue changes, popularity and the bundle pointer",
    )

    # Logs and metrics
    log_level: str = Field(
        "info",
        pattern="(?i)^(debug|info|warning|error)$",
        description="debug, info, warning or error",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="address on which a process without HTTP of its own serves /metrics",
    )
    metrics_port: int = Field(0, ge=0, le=65535, description="its port; 0: none")

    @model_validator(mode="before")
    @classmethod
    def _split_keys(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("api_keys", "api_read_keys", "api_admin_keys"):
            if isinstance(text := values.get(name), str):
                values[name] = [key.strip() for key in text.split(",") if key.strip()]
        return {name: value for name, value in values.items() if value != ""}

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: SecretStr) -> SecretStr:
        redaction.check_redis_url(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _check_thresholds(self) -> Self:
        if self.cold_start_threshold > self.warm_user_threshold:
            raise ValueError(
                f"COLD_START_THRESHOLD={self.cold_start_threshold} must not exceed "
                f"WARM_USER_THRESHOLD={self.warm_user_threshold}"
            )
        return self

    @model_validator(mode="after")
    def _check_ensemble(self) -> Self:
        if self.ensemble_als_weight == self.ensemble_two_tower_weight == 0:
            raise ValueError(
                "ENSEMBLE_ALS_WEIGHT and ENSEMBLE_TWO_TOWER_WEIGHT are both 0; "
                "ENABLE_ENSEMBLE=false skips the ensemble"
            )
        return self

    @property
    def secrets(self) -> list[str]:
        """What must appear in no output: passwords of URLs and keys of the API."""
        keys = self.api_keys | self.api_read_keys | self.api_admin_keys
        urls = (self.redis_url.get_secret_value(), self.archive_url)
        return [secret for url in urls for secret in redaction.secrets_of(url)] + [
            key.get_secret_value() for key in keys
        ]

    @property
    def dlq_topic(self) -> str:
        """Where events that cannot be read go."""
        return self.interactions_topic + ".dlq"

    @property
    def deletions_topic(self) -> str:
        """Which users were deleted, and when: compacted, and kept when the user comes back."""
        return self.users_topic + ".deleted"

    @cached_property
    def use_cases(self) -> UseCases:
        """The event types and use cases. Raises ConfigurationError."""
        return use_cases.load(self.use_cases_path)

    @cached_property
    def experiments(self) -> Experiments:
        """The experiments, every variant's overrides checked. Raises ConfigurationError."""
        found = experiments.load(self.experiments_path, self.use_cases)
        for variant in found.by_id.values():
            try:
                self.with_overrides(variant.overrides)
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"{self.experiments_path}: variant {variant.label}: {error}"
                ) from None
        return found

    def with_overrides(self, overrides: Mapping[str, Any]) -> Settings:
        """These settings with other values, by name of the field; what was set here is set there.

        Raises ConfigurationError.
        """
        try:
            return Settings(
                **{
                    "_env_file": None,
                    **{name: getattr(self, name) for name in self.model_fields_set},
                    **overrides,
                }
            )
        except ValidationError as error:
            raise ConfigurationError(_told(error)) from None


def load() -> Settings:
    """The settings of this process; logs and tracebacks mask their secrets from now on.

    Raises ConfigurationError, one line a wrong name.
    """
    try:
        loaded = Settings()
    except ValidationError as error:
        raise ConfigurationError(_told(error)) from None
    redaction.register(loaded.secrets)
    return loaded


def _told(error: ValidationError) -> str:
    return "; ".join(
        (
            f"{'_'.join(str(part) for part in problem['loc']).upper() or 'settings'}: "
            f"{problem['msg'].removeprefix('Value error, ')}"
        )
        for problem in error.errors()
    )


def rows(values: Settings | None = None) -> list[tuple[str, str, str]]:
    """Name, value (None: the default; keys and passwords masked) and meaning of every setting, in
    the order of the class.
    """
    found = []
    for name, field in Settings.model_fields.items():
        value = field.default if values is None else getattr(values, name)
        if isinstance(value, frozenset):
            text = ",".join(str(key) for key in value)
        elif name == "deletion_salt":
            text = str(value)  # masked
        else:
            text = (
                ""
                if value is None
                else redaction.shown_url(
                    value.get_secret_value() if isinstance(value, SecretStr) else str(value)
                )
            )
        found.append((name.upper(), text, field.description or ""))
    return found


if __name__ == "__main__":
    import sys

    if sys.argv[1:] == ["--markdown"]:
        print("| name | default | meaning |\n|---|---|---|")
        print(
            "\n".join(
                f"| `{name}` | {f'`{value}`' if value else ''} | {meaning} |"
                for name, value, meaning in rows()
            )
        )
    else:
        try:
            print(
                "\n".join(f"{name}={value}\n    {meaning}" for name, value, meaning in rows(load()))
            )
        except ConfigurationError as error:
            sys.exit(f"error: {error}")
