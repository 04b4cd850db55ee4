"""A small bundle for the tests of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from core.types import Item
from models import files
from models.als import ALSModel
from models.bundle import CATALOGUE
from models.content import ContentModel
from models.id_map import IdMap
from models.popular import PopularModel
from models.router.served import ServedSegment

ITEMS = [
    Item(item_id="a", item_type="startup", categories=["fintech"]),
    Item(item_id="b", item_type="startup", categories=["health"]),
]
WARM = ServedSegment(
    segment="warm",
    users=120,
    fixed=0.081,
    auto=0.091,
    best_engine="als",
    best=0.092,
    low=0.085,
    high=0.099,
)
"""Users who get an answer below ALS alone, by the thresholds of the settings."""


def write(folder: Path, scale: float = 1.0) -> None:
    """Write the parts of the bundle into `folder`; `scale` multiplies the ALS factors."""
    files.write_json(folder / CATALOGUE, ITEMS)
    ALSModel(
        IdMap(["a", "b"]),
        np.eye(2, dtype=np.float32) * np.float32(scale),
        regularization=0.1,
        alpha=1,
    ).save(folder / "als")
    ContentModel.fit(ITEMS).save(folder / "content")
    PopularModel({"unlabelled": [("a", 1.0)]}).save(folder / "popular")


def is_mapped(array: Any) -> bool:
    """Whether `array` is a view of a mapped file."""
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array is not None
