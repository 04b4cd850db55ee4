"""The user tower: which inputs change its vector, which it rejects, and that a loaded model is
equal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import ModelCorrupt, ModelMissing
from models.content import ContentModel
from models.id_map import IdMap
from models.two_tower import AGES, UNKNOWN_AGE, Floats, TwoTowerFacts, TwoTowerModel, ages, shapes
from tests.engines import world

FACTS = TwoTowerFacts(
    dimension=8,
    layers=2,
    heads=2,
    history=5,
    items=7,
    event_types=["like", "view"],
    roles=["developer", "investor"],
)
NOTHING = np.zeros(8, dtype=np.float32)


def random_model(facts: TwoTowerFacts = FACTS, seed: int = 1) -> TwoTowerModel:
    rng = np.random.default_rng(seed)
    fitted = ContentModel.fit(world.ITEMS)
    vocabulary = ContentModel(fitted.terms, fitted.idf, IdMap([]), fitted.item_vectors[:0])
    arrays = {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in shapes(facts, len(fitted.terms)).items()
    }
    vectors = rng.standard_normal((facts.items, facts.dimension), dtype=np.float32)
    return TwoTowerModel(
        facts, IdMap([f"i{row}" for row in range(facts.items)]), vectors, vocabulary, arrays
    )


def read(
    model: TwoTowerModel,
    rows: list[int],
    times: list[float],
    types: list[str] | None = None,
    profile: Floats = NOTHING,
) -> Floats:
    kinds = model.type_rows(types or ["like"] * len(rows))
    return model.user_vector(
        model.item_vectors[rows], kinds, np.array(times, dtype=np.float64), profile
    )


def test_age_classes_are_powers_of_two_of_whole_seconds() -> None:
    classes = ages(np.array([1000.0, 1000.9, 1001.0, 1004.0, 1e10]))
    assert classes[:4, :4].tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [3, 3, 2, 0]]
    assert classes[4, 0] == AGES - 1
    assert (ages(np.array([0.0, 5.0]))[[0, 0, 1], [0, 1, 0]] == UNKNOWN_AGE).all()


def test_order_age_event_types_and_profile_change_the_vector() -> None:
    model = random_model()
    base = read(model, [1, 2, 3], [100, 200, 300])
    assert base.shape == (8,)
    assert base.dtype == np.float32
    assert np.array_equal(base, read(model, [1, 2, 3], [100, 200, 300]))
    others = [
        read(model, [2, 1, 3], [100, 200, 300]),
        read(model, [1, 2, 3], [100, 200, 30_000]),
        read(model, [1, 2, 3], [0, 0, 0]),
        read(model, [1, 2, 3], [100, 200, 300], ["view", "like", "like"]),
        read(model, [1, 2, 3], [100, 200, 300], ["never heard of", "like", "like"]),
        read(model, [1, 2, 3], [100, 200, 300], profile=model.profile_vector(["fintech"], [])),
        read(model, [1, 2, 3], [100, 200, 300], profile=model.profile_vector([], ["investor"])),
    ]
    assert all(not np.allclose(base, other, atol=1e-3) for other in others)


def test_the_vector_depends_on_relative_time_only() -> None:
    model = random_model()
    assert np.array_equal(read(model, [1, 2], [100, 200]), read(model, [1, 2], [900_100, 900_200]))


def test_a_user_without_history_gets_a_vector_from_the_profile() -> None:
    model = random_model()
    fintech, health = (
        read(model, [], [], profile=model.profile_vector([word], []))
        for word in ("fintech", "health")
    )
    assert np.isfinite(fintech).all()
    assert not np.allclose(fintech, health, atol=1e-3)
    assert not model.profile_vector(["unheard of"], ["nor of this"]).any()


def test_too_many_events_are_rejected() -> None:
    with pytest.raises(ValueError, match="6 events, but the user tower reads at most 5"):
        read(random_model(), [0] * 6, [1] * 6)


def test_a_loaded_model_gives_the_same_vectors(tmp_path: Path) -> None:
    model = random_model()
    model.save(tmp_path)
    loaded = TwoTowerModel.load(tmp_path)
    profile = model.profile_vector(["fintech"], ["developer"])
    assert np.array_equal(
        read(model, [4, 1], [5, 9], profile=profile), read(loaded, [4, 1], [5, 9], profile=profile)
    )
    assert np.array_equal(model.content_vectors(world.ITEMS), loaded.content_vectors(world.ITEMS))
    assert loaded.item_ids.ids == model.item_ids.ids


@pytest.mark.parametrize(
    "name",
    [
        "two_tower.json",
        "two_tower_item_mapping.json",
        "item_vectors.npy",
        "user_tower.npz",
        "vocabulary/idf.npy",
    ],
)
def test_the_error_for_a_damaged_or_missing_file_names_it(tmp_path: Path, name: str) -> None:
    random_model().save(tmp_path)
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(ModelCorrupt, match=name):
        TwoTowerModel.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ModelMissing, match=name):
        TwoTowerModel.load(tmp_path)


def test_arrays_of_another_shape_or_type_are_rejected(tmp_path: Path) -> None:
    random_model().save(tmp_path)
    with np.load(tmp_path / "user_tower.npz") as loaded:
        arrays = dict(loaded)
    np.savez(tmp_path / "user_tower.npz", **{**arrays, "start": np.zeros(9, np.float32)})
    with pytest.raises(ModelCorrupt, match="start must be"):
        TwoTowerModel.load(tmp_path)
    np.savez(tmp_path / "user_tower.npz", **{**arrays, "start": np.full(8, np.nan, np.float32)})
    with pytest.raises(ModelCorrupt, match="start holds NaN"):
        TwoTowerModel.load(tmp_path)
    np.savez(
        tmp_path / "user_tower.npz", allow_pickle=True, **{**arrays, "start": np.array([object()])}
    )
    with pytest.raises(ModelCorrupt, match="array"):
        TwoTowerModel.load(tmp_path)
