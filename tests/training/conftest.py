from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from core.settings import Settings
from store.state.apply import deletions
from tests.training import world


@pytest.fixture
def trainer(settings: Settings, redis: Redis) -> Settings:
    """Settings of a small world: its events archived, its catalogue in Redis."""
    small = settings.model_copy(
        update={
            "als_factors": 4,
            "als_regularization": 5.0,
            "als_alpha": 2.0,
            "training_lease_s": world.LEASE_S,
            "holdout_fraction": 0.25,
        }
    )
    world.archived(small, world.parity())
    world.put_items(redis)
    deletions.mark_ready(redis)
    return small


@pytest.fixture
def offline(tmp_path: Path) -> Settings:
    """Settings for work on data at hand, without a server."""
    return Settings(
        archive_url=str(tmp_path / "archive"),
        models_path=tmp_path / "models",
        holdout_fraction=0.25,
    )
