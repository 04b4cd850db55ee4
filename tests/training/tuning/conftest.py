from __future__ import annotations

import io
from pathlib import Path

import pytest
from redis import Redis
from rich.console import Console

from core.settings import Settings
from store.state.apply import deletions
from tests.training import world
from tests.training.tuning.run import USERS
from training import commands


@pytest.fixture
def small(settings: Settings) -> Settings:
    two_tower = {
        "enable_two_tower": True,
        "two_tower_dimension": 8,
        "two_tower_epochs": 2,
        "two_tower_history": 10,
    }
    als = {
        "als_factors": 16,
        "als_regularization": 5.0,
        "als_alpha": 2.0,
        "als_iterations": 6,
        "holdout_fraction": 0.25,
    }
    return settings.model_copy(update={**two_tower, **als})


@pytest.fixture
def folder(small: Settings, redis: Redis, tmp_path: Path) -> Path:
    """A folder with a dataset and its items."""
    world.archived(small, world.parity(users=USERS))
    deletions.mark_ready(redis)
    commands.make_dataset(small, tmp_path / "dataset", None, Console(file=io.StringIO()))
    world.write_items(tmp_path / "items.jsonl")
    return tmp_path
