"""Content vectors, id maps and stored popularity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from core.errors import ModelCorrupt
from core.types import Item
from models import content
from models.content import ContentModel, item_terms
from models.id_map import IdMap
from models.popular import PopularModel

ITEMS = [
    Item(
        item_id="pay",
        item_type="startup",
        title="Payflow",
        categories=["Fintech"],
        tags=["payments"],
        attributes={"stage": "seed"},
    ),
    Item(item_id="bank", item_type="startup", categories=["fintech"], tags=["banking"]),
    Item(
        item_id="leaf",
        item_type="startup",
        categories=["climate tech"],
        text="Carbon accounting for farms",
    ),
]


def cosine(model: ContentModel, a: Item, b: Item) -> float:
    vectors = model.vectors([a, b])
    return float((vectors[[0]] @ vectors[[1]].T).toarray()[0, 0])


def test_items_with_the_same_category_are_similar_in_any_letter_case() -> None:
    model = ContentModel.fit(ITEMS)
    assert cosine(model, ITEMS[0], ITEMS[1]) > 0
    assert cosine(model, ITEMS[0], ITEMS[2]) == 0


def test_an_interest_matches_categories_tags_and_words() -> None:
    model = ContentModel.fit(ITEMS)
    for interest, expected in {
        "FinTech": ["pay", "bank"],
        "payments": ["pay"],
        "carbon": ["leaf"],
        "Climate_Tech": ["leaf"],
        "climate": ["leaf"],
    }.items():
        scores = model.item_vectors @ model.profile_from_interests([interest])
        assert [
            item_id for item_id, score in zip(model.item_ids.ids, scores, strict=True) if score > 0
        ] == expected, interest


def test_a_new_item_has_the_vector_of_an_identical_one() -> None:
    model = ContentModel.fit(ITEMS)
    twin = Item(item_id="new", item_type="startup", categories=["fintech"], tags=["banking"])
    assert cosine(model, twin, ITEMS[1]) == pytest.approx(1)


def test_a_loaded_model_has_the_same_vectors(tmp_path: Path) -> None:
    model = ContentModel.fit(ITEMS)
    model.save(tmp_path)
    loaded = ContentModel.load(tmp_path)
    assert loaded.terms == model.terms
    assert (loaded.vectors(ITEMS) - model.item_vectors).nnz == 0 or abs(
        loaded.vectors(ITEMS) - model.item_vectors
    ).max() < 1e-6


def test_terms_and_vectors_equal_those_of_scikit_learn() -> None:
    model = ContentModel.fit(ITEMS)
    reference = TfidfVectorizer(analyzer=list, sublinear_tf=True, dtype=np.float32)
    vectors = reference.fit_transform([item_terms(item) for item in ITEMS])
    assert model.terms == reference.get_feature_names_out().tolist()
    assert model.idf.tolist() == reference.idf_.tolist()
    assert model.item_vectors.toarray().tolist() == vectors.toarray().tolist()


def test_a_full_vocabulary_has_the_most_frequent_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MAX_TERMS", 3)
    texts = ["zeta beta alpha", "beta zeta", "zeta gamma"]
    model = ContentModel.fit(
        [Item(item_id=str(row), item_type="x", text=text) for row, text in enumerate(texts)]
    )
    assert model.terms == ["alpha", "beta", "zeta"], "terms of equal frequency are taken by name"
    assert model.item_vectors.shape == (3, 3)


@pytest.mark.parametrize("items", [[], [Item(item_id="silent", item_type="x")]])
def test_a_catalogue_without_terms_has_empty_vectors(items: list[Item], tmp_path: Path) -> None:
    ContentModel.fit(items).save(tmp_path)
    model = ContentModel.load(tmp_path)
    assert model.vectors(ITEMS).shape == (3, 0)
    assert model.profile_from_interests(["fintech"]).shape == (0,)


def test_an_id_map_maps_both_ways_and_loads_unchanged(tmp_path: Path) -> None:
    ids = IdMap(["b", "a", "é\u2028"])
    ids.save(tmp_path / "map.json")
    loaded = IdMap.load(tmp_path / "map.json")
    assert loaded.ids == ["b", "a", "é\u2028"]
    assert (loaded.row("a"), loaded.row("nobody")) == (1, -1)
    assert loaded.rows(["a", "nobody", "b"]).tolist() == [1, -1, 0]
    assert loaded.rows([]).dtype == np.int32
    with pytest.raises(ValueError, match="duplicate id 'a'"):
        IdMap(["a", "a"])


@pytest.mark.parametrize("text", ['{"a": 0, "b": 0}', '{"a": 1}', '["a"]', "{", ""])
def test_the_error_for_a_damaged_id_map_names_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(ModelCorrupt, match=r"map\.json"):
        IdMap.load(tmp_path / "map.json")


def test_popularity_is_sorted_and_loads_unchanged(tmp_path: Path) -> None:
    PopularModel({"unlabelled": [("a", 1.0), ("b", 3.0)]}).save(tmp_path)
    assert PopularModel.load(tmp_path).scores == {"unlabelled": [("b", 3.0), ("a", 1.0)]}
    with pytest.raises(ValueError, match="unlabelled"):
        PopularModel({"unlabelled": [("a", float("nan"))]})
