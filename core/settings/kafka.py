"""Settings of the Kafka clients: brokers, topics, consumer groups and timeouts."""

from __future__ import annotations

from pydantic import BaseModel, Field


class KafkaSettings(BaseModel, frozen=True):
    """Where the log is, and how its topics and consumer groups are called."""

    kafka_bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="host:port of the brokers, comma-separated"
    )
    interactions_topic: str = Field(
        "interactions",
        description="topic to which backends publish interactions",
    )
    items_topic: str = Field(
        "items",
        description="compacted topic of the catalogue",
    )
    users_topic: str = Field(
        "users",
        description="compacted topic of user profiles",
    )
    topic_partitions: int = Field(
        4,
        ge=1,
        le=1000,
        description=(
            "partitions of a topic that Eddyline creates; a topic that exists keeps its "
            "number; a partition is the unit of parallelism and of atomicity"
        ),
    )
    topic_replication: int = Field(
        1, ge=1, le=10, description="replicas of a topic that Eddyline creates; 3 in production"
    )
    ingest_group: str = Field(
        "eddyline-ingest",
        description="consumer group that shares the partitions among ingest processes",
    )
    archive_group: str = Field(
        "eddyline-archive",
        description="consumer group that shares the partitions among archive processes",
    )
    model_updates_topic: str = Field(
        "model-updates", description="topic on which ingest names the users and items that changed"
    )
    retrain_requests_topic: str = Field(
        "retrain-requests",
        description="topic of the requests for a retrain",
    )
    live_group: str = Field(
        "eddyline-live",
        description="consumer group that shares the model updates among live workers",
    )
    trainer_group: str = Field(
        "eddyline-trainer",
        description="consumer group that shares the retrain requests among training workers",
    )
    kafka_timeout_s: float = Field(
        10.0,
        gt=0,
        description="seconds to wait for an answer of the broker before the call fails",
    )
    start_timeout_s: float = Field(
        60.0,
        ge=0,
        description=(
            "seconds that a starting process waits for Kafka and Redis before it ends with an "
            "error; the API starts without them"
        ),
    )
    session_timeout_s: float = Field(
        10.0,
        ge=6,
        le=1800,
        description=(
            "seconds without a heartbeat after which the partitions of a consumer are reassigned"
        ),
    )

    @property
    def dlq_topic(self) -> str:
        """Topic of the dead letters: messages that are no valid event."""
        return self.interactions_topic + ".dlq"

    @property
    def deletions_topic(self) -> str:
        """Compacted topic of the deletions of users; a user who comes back stays in it."""
        return self.users_topic + ".deleted"
