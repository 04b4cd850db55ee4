"""Settings of a schedule: small limits, experiments, and where the state is."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from core.settings import Settings
from testing.apache import KafkaBroker
from testing.tansu import TansuBroker
from tests.exactly_once.conftest import EXPERIMENTS

WINDOW = 100
"""Offsets of the duplicate window: so few that schedules cross windows, and a trimmed head is
older than a window.
"""


@dataclass(frozen=True)
class Layout:
    """Where the state is, and how fast events come."""

    shards: int = 1
    is_cluster: bool = False
    """Three primaries and three replicas; else one server."""
    events_per_s: int = 300


ONE_SERVER = Layout()
LAYOUTS = {
    "server": ONE_SERVER,
    "shards": Layout(shards=4),
    "cluster": Layout(shards=4, is_cluster=True, events_per_s=2000),
}


def settings_of(
    broker: KafkaBroker | TansuBroker, redis_url: str, directory: Path, layout: Layout
) -> Settings:
    """Settings with small batches, caps, windows and files, so that a schedule reaches the limits
    often.
    """
    unique = uuid.uuid4().hex[:10]
    experiments = directory / "experiments.toml"
    experiments.write_text(EXPERIMENTS)
    return Settings(
        kafka_bootstrap_servers=broker.address,
        redis_url=SecretStr(redis_url),
        redis_shards=layout.shards,
        topic_partitions=4 if layout.shards == 1 else 2 * layout.shards,
        interactions_topic=f"interactions-{unique}",
        items_topic=f"items-{unique}",
        users_topic=f"users-{unique}",
        model_updates_topic=f"model-updates-{unique}",
        retrain_requests_topic=f"retrain-requests-{unique}",
        session_timeout_s=6.0,
        api_port=0,
        archive_url=str(directory / "archive"),
        # about five files a second
        archive_file_events=max(150, layout.events_per_s // 5),
        archive_file_s=0.5,
        models_path=directory / "models",
        experiments_path=experiments,
        transaction_events=40,
        history_cap=50,
        dedup_window=WINDOW,
    )
