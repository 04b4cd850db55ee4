"""Content features of items, and the simulated profiles of a fit."""

from __future__ import annotations

from core.types import Item
from models.id_map import IdMap
from training.two_tower.content import Content


def test_labels_of_items_have_the_terms_of_declared_interests() -> None:
    entries = [
        Item(
            item_id=f"i{number}",
            item_type="startup",
            categories=["Climate Tech", "x"],
            tags=["solar_power"],
        )
        for number in range(3)
    ]
    content = Content.of(IdMap(["i0", "i1", "gone"]), entries, 1)
    assert content.item_labels.toarray().tolist() == [
        [1.0, 1.0, 1.0],
        [1.0, 1.0, 1.0],
        [0.0, 0.0, 0.0],
    ]
    names = ["Climate Tech", "x", "solar_power"]
    rows = sorted(map(tuple, content.labels.toarray().round(5).tolist()))
    assert rows == sorted(
        tuple(content.vocabulary.profile_from_interests([name]).round(5).tolist()) for name in names
    )


def test_a_catalogue_without_terms_has_no_features() -> None:
    content = Content.of(IdMap(["a", "b"]), [], 1)
    assert content.features.shape == (2, 0)
