"""Bundles whose ALS model has user factors, for the routes that compare users."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.settings import Settings
from models import bundle, files
from models.als import ALSModel, UserSide
from models.id_map import IdMap
from models.registry import Registry
from tests.engines.world import FACTORS, ITEMS

PEOPLE = {
    "fin": (1.0, 0.0),
    "fin-too": (2.0, 0.1),
    "both": (1.0, 1.0),
    "health": (0.0, 1.0),
    "against": (-1.0, 0.0),
    "blank": (0.0, 0.0),
}


def publish_users(settings: Settings, people: dict[str, tuple[float, float]] | None) -> str:
    """A bundle with an ALS model of `people` (None: without user factors), live at once."""

    def write(folder: Path) -> None:
        files.write_json(folder / bundle.CATALOGUE, ITEMS)
        users = (
            UserSide.of(IdMap(list(people)), np.array(list(people.values()), np.float32))
            if people is not None
            else None
        )
        items = IdMap(list(FACTORS)), np.array(list(FACTORS.values()), np.float32)
        ALSModel(*items, users, regularization=0.1, alpha=10).save(folder / "als")

    return Registry(settings.models_path).publish(write)
