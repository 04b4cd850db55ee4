"""Loading a bundle: damaged or missing parts are reported, and the other parts load."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from core.errors import ModelCorrupt
from models.als import ALSModel, UserSide
from models.bundle import CATALOGUE
from models.id_map import IdMap
from models.popular import PopularModel
from models.registry import Registry
from tests.models.world import is_mapped, write


def test_a_damaged_part_is_reported_and_the_others_load(models: Registry) -> None:
    models.publish(write)
    damaged = models.path / str(models.current()) / "als" / "item_factors.npy"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    bundle = models.load()
    assert bundle.als is None
    assert bundle.content is not None
    assert bundle.popular is not None
    assert "item_factors.npy is damaged" in bundle.missing["als"]
    with pytest.raises(ModelCorrupt, match=r"item_factors\.npy"):
        models.load(strict=True)
    with pytest.raises(ModelCorrupt, match=r"item_factors\.npy"):
        models.promote(str(models.current()))


def test_a_missing_part_is_reported_and_the_others_load(models: Registry) -> None:
    models.publish(write)
    (models.path / str(models.current()) / "content" / "idf.npy").unlink()
    bundle = models.load()
    assert bundle.content is None
    assert bundle.als is not None
    assert "idf.npy" in bundle.missing["content"]


def test_a_bundle_reports_the_parts_it_lacks(models: Registry) -> None:
    models.publish(lambda folder: PopularModel({}).save(folder / "popular"))
    assert models.load().missing.keys() == {"als", "content"}


@pytest.mark.parametrize("name", ["manifest.json", CATALOGUE])
def test_a_damaged_manifest_or_catalogue_makes_the_bundle_corrupt(
    models: Registry, name: str
) -> None:
    models.publish(write)
    (models.path / str(models.current()) / name).write_text("[")
    with pytest.raises(ModelCorrupt, match=name.replace(".", r"\.")):
        models.load()


def test_paths_override_parts_and_a_bad_path_affects_only_its_part(
    models: Registry, tmp_path: Path
) -> None:
    models.publish(write)
    ALSModel(IdMap(["z"]), np.ones((1, 3), dtype=np.float32), regularization=0.1, alpha=1).save(
        tmp_path / "mine"
    )
    bundle = models.load(als_path=tmp_path / "mine")
    assert bundle.als is not None
    assert bundle.als.item_ids.ids == ["z"]
    bundle = models.load(als_path=tmp_path / "nothing", two_tower_path=tmp_path / "tower")
    assert bundle.als is None
    assert "nothing" in bundle.missing["als"]
    assert "tower" in bundle.missing["two_tower"]


def _spoil(array: Path, value: float) -> None:
    """Write one invalid number into a .npy or .npz."""
    loaded = np.load(array)
    arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    name = next(name for name, part in arrays.items() if part.dtype.kind == "f")
    arrays[name] = arrays[name].copy()
    arrays[name].reshape(-1)[-1] = value
    np.save(array, arrays[""]) if "" in arrays else np.savez(array, **arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name",
    ["als/item_factors.npy", "als/user_factors.npy", "content/item_vectors.npz", "content/idf.npy"],
)
def test_a_bundle_with_nan_or_infinity_never_goes_live(
    models: Registry, name: str, value: float
) -> None:
    old = models.publish(write)

    def write_damaged(folder: Path) -> None:
        write(folder)
        factors = np.eye(2, dtype=np.float32)
        ids = IdMap(["a", "b"])
        ALSModel(
            ids, factors, UserSide.of(IdMap(["u", "v"]), factors), regularization=0.1, alpha=1
        ).save(folder / "als")
        _spoil(folder / name, value)

    new = models.publish(write_damaged, promote=False)
    with pytest.raises(ModelCorrupt, match=rf"{name}.* holds NaN or infinity"):
        models.promote(new)
    with pytest.raises(ModelCorrupt, match=rf"{name}.* holds NaN or infinity"):
        models.verify(new)
    assert models.current() == old
    part = name.split("/", maxsplit=1)[0]
    if "user_factors" in name:  # serving does not read them
        with pytest.raises(ModelCorrupt, match=name):
            ALSModel.load(models.path / new / part, users=True)
    else:
        loaded = models.load(new)
        assert name in loaded.missing[part]
        assert loaded.popular is not None
        with pytest.raises(ModelCorrupt, match=name):
            models.load(new, strict=True)


def test_a_newer_minor_format_is_read_and_a_newer_major_is_rejected(models: Registry) -> None:
    version = models.publish(write)
    path = models.path / version / "manifest.json"
    fields = json.loads(path.read_text())
    assert fields["format"] == "1.0"
    path.write_text(json.dumps({**fields, "format": "1.7", "signature": {"by": "a later release"}}))
    assert models.load(strict=True).als is not None
    del fields["format"]
    path.write_text(json.dumps(fields))
    assert models.load(strict=True).manifest.version == version, (
        "bundles of older releases lack the field"
    )
    path.write_text(json.dumps({**fields, "format": "2.0", "files": ["of another type"]}))
    with pytest.raises(
        ModelCorrupt, match=r"manifest\.json has format 2\.0, and this release reads 1\.x: update"
    ):
        models.load()
    path.write_text(json.dumps({**fields, "format": "new"}))
    with pytest.raises(ModelCorrupt, match=r"major\.minor"):
        models.load()


def test_no_file_of_a_bundle_can_execute_code(models: Registry) -> None:
    models.publish(write)
    for path in (models.path / str(models.current())).rglob("*"):
        if path.is_file():
            assert path.suffix in {".json", ".npy", ".npz"}


def test_a_mapped_bundle_loads_the_same_and_shares_what_published_files_hold(
    models: Registry, tmp_path: Path
) -> None:
    models.publish(write)
    own = models.load()
    mapped = models.load(mapped=True)
    assert own.als is not None
    assert own.content is not None
    assert mapped.als is not None
    assert mapped.content is not None
    np.testing.assert_equal(mapped.als.item_factors, own.als.item_factors)
    assert (mapped.content.item_vectors != own.content.item_vectors).nnz == 0
    assert is_mapped(mapped.als.item_factors)
    assert is_mapped(mapped.content.item_vectors.data)
    assert not is_mapped(own.als.item_factors)
    assert mapped.als.digest == own.als.digest
    assert mapped.content.item_ids is mapped.als.item_ids, "the same ids are in memory once"
    mapped.als.fold_in_many(sp.csr_matrix(np.eye(2, dtype=np.float32)))

    own.als.save(tmp_path / "override")
    override = models.load(als_path=tmp_path / "override", mapped=True).als
    assert override is not None
    assert not is_mapped(override.item_factors), "ALS_MODEL_PATH may be written in place"


def test_a_damaged_file_is_found_before_it_is_mapped(models: Registry) -> None:
    models.publish(write)
    damaged = models.path / str(models.current()) / "als" / "item_factors.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    assert "item_factors.npy is damaged" in models.load(mapped=True).missing["als"]
