"""The registry: a bundle becomes visible as a whole or not at all, and readers never see a part of it."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from core.errors import ModelCorrupt, ModelMissing
from core.types import Item
from models import files, registry
from models.als import ALSModel
from models.bundle import CATALOGUE
from models.content import ContentModel
from models.id_map import IdMap
from models.popular import PopularModel
from models.registry import Registry

ITEMS = [Item(item_id="a", item_type="startup", categories=["fintech"]), Item(item_id="b", item_type="startup", categories=["health"])]


def write(folder: Path, scale: float = 1.0) -> None:
    files.write_json(folder / CATALOGUE, ITEMS)
    ALSModel(IdMap(["a", "b"]), np.eye(2, dtype=np.float32) * np.float32(scale), regularization=0.1, alpha=1).save(folder / "als")
    ContentModel.fit(ITEMS).save(folder / "content")
    PopularModel({"unlabelled": [("a", 1.0)]}).save(folder / "popular")


@pytest.fixture
def models(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "artifacts")


def test_a_published_bundle_is_live_and_complete(models: Registry) -> None:
    assert (models.versions(), models.current()) == ([], None)
    version = models.publish(write, {"seeds": {"training": 42}, "positions": {"interactions": {"0": 17}}})
    bundle = models.load()
    assert (models.current(), bundle.version, bundle.missing) == (version, version, {})
    assert bundle.catalogue == ITEMS
    assert bundle.als is not None
    assert bundle.content is not None
    assert bundle.popular is not None
    assert bundle.manifest.positions == {"interactions": {"0": 17}}
    assert bundle.manifest.parts == ["als", "content", "popular"]
    assert "als/item_factors.npy" in bundle.manifest.files


def test_without_a_bundle_the_error_names_the_command_to_run(models: Registry) -> None:
    with pytest.raises(ModelMissing, match="training retrain"):
        models.load()
    with pytest.raises(ModelMissing, match="no version"):
        models.load("../../etc")


def test_a_writer_that_fails_leaves_the_old_bundle_live(models: Registry) -> None:
    """Step 2 raises after it has written one file."""
    live = models.publish(write)

    def fail(folder: Path) -> None:
        (folder / "als").mkdir()
        (folder / "als" / "half.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.publish(fail)
    assert (models.versions(), models.current()) == ([live], live)
    assert not list(models.path.glob(".new-*"))


@pytest.mark.parametrize("step", ["_fsync", "_seal", "_point"])
def test_a_power_cut_between_the_steps_leaves_the_old_bundle_live(models: Registry, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps 4, 3 and 6. A power cut runs no clean-up, so `rmtree` does nothing here."""
    live = models.publish(write)

    def cut(*_: object) -> None:
        raise SystemExit("power")

    monkeypatch.setattr(registry if step == "_fsync" else Registry, step, cut)
    monkeypatch.setattr(registry.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(SystemExit):
        models.publish(write)
    monkeypatch.undo()
    assert models.current() == live
    assert models.load().version == live
    if step == "_point":
        assert len(models.versions()) == 2  # step 5 is complete: a finished bundle that is not live yet
    else:
        assert models.versions() == [live]
        assert list(models.path.glob(".new-*"))


def test_unfinished_folders_are_pruned_after_a_day(models: Registry) -> None:
    models.publish(write)
    old, recent = models.path / ".new-dead", models.path / ".new-alive"
    old.mkdir()
    recent.mkdir()
    (models.path / ".pointer-dead").write_text("x")
    yesterday = time.time() - registry.ABANDONED_S - 60
    for leftover in (old, models.path / ".pointer-dead"):
        os.utime(leftover, (yesterday, yesterday))
    models.prune(5)
    assert sorted(path.name for path in models.path.glob(".*")) == [".new-alive"]


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
def test_a_damaged_manifest_or_catalogue_makes_the_bundle_corrupt(models: Registry, name: str) -> None:
    models.publish(write)
    (models.path / str(models.current()) / name).write_text("[")
    with pytest.raises(ModelCorrupt, match=name.replace(".", r"\.")):
        models.load()


def test_paths_override_parts_and_a_bad_path_affects_only_its_part(models: Registry, tmp_path: Path) -> None:
    models.publish(write)
    ALSModel(IdMap(["z"]), np.ones((1, 3), dtype=np.float32), regularization=0.1, alpha=1).save(tmp_path / "mine")
    bundle = models.load(als_path=tmp_path / "mine")
    assert bundle.als is not None
    assert bundle.als.item_ids.ids == ["z"]
    bundle = models.load(als_path=tmp_path / "nothing", two_tower_path=tmp_path / "tower")
    assert bundle.als is None
    assert "nothing" in bundle.missing["als"]
    assert "tower" in bundle.missing["two_tower"]


def test_rollback_returns_to_the_version_that_was_live_before(models: Registry) -> None:
    first, second = models.publish(write), models.publish(write)
    unpromoted = models.publish(write, promote=False)
    assert len({first, second, unpromoted}) == 3
    assert models.current() == second
    assert models.rollback() == first
    assert models.current() == first
    with pytest.raises(ModelMissing, match="promote one of"):
        models.rollback()
    models.promote(unpromoted)
    assert models.rollback() == first


def test_prune_keeps_the_newest_and_never_removes_the_live_one(models: Registry) -> None:
    versions = [models.publish(write) for _ in range(5)]
    models.promote(versions[0])
    assert models.prune(2) == versions[1:3]
    assert models.versions() == [versions[0], *versions[3:]]
    assert models.load().version == versions[0]


def test_diff_lists_the_differences_between_two_manifests(models: Registry) -> None:
    a = models.publish(write, {"settings": {"als_factors": 64, "als_alpha": 40}})
    b = models.publish(lambda folder: write(folder, 2), {"settings": {"als_factors": 128, "als_alpha": 40}})
    diff = models.diff(a, b)
    assert diff["settings.als_factors"] == (64, 128)
    assert "settings.als_alpha" not in diff
    assert "files.als/item_factors.npy" in diff


def test_an_unknown_manifest_field_is_rejected_and_nothing_is_published(models: Registry) -> None:
    with pytest.raises(ValueError, match="metricz"):
        models.publish(write, {"metricz": {}})
    assert models.versions() == []


def _spoil(array: Path, value: float) -> None:
    """Write one invalid number into a .npy or .npz."""
    loaded = np.load(array)
    arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    name = next(name for name, part in arrays.items() if part.dtype.kind == "f")
    arrays[name] = arrays[name].copy()
    arrays[name].reshape(-1)[-1] = value
    np.save(array, arrays[""]) if "" in arrays else np.savez(array, **arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["als/item_factors.npy", "als/user_factors.npy", "content/item_vectors.npz", "content/idf.npy"])
def test_a_bundle_with_nan_or_infinity_never_goes_live(models: Registry, name: str, value: float) -> None:
    old = models.publish(write)

    def write_damaged(folder: Path) -> None:
        write(folder)
        factors = np.eye(2, dtype=np.float32)
        ids = IdMap(["a", "b"])
        ALSModel(ids, factors, IdMap(["u", "v"]), factors, regularization=0.1, alpha=1).save(folder / "als")
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
    assert models.load(strict=True).manifest.version == version, "bundles of older releases lack the field"
    path.write_text(json.dumps({**fields, "format": "2.0", "files": ["of another type"]}))
    with pytest.raises(ModelCorrupt, match=r"manifest\.json has format 2\.0, and this release reads 1\.x: update"):
        models.load()
    path.write_text(json.dumps({**fields, "format": "new"}))
    with pytest.raises(ModelCorrupt, match=r"major\.minor"):
        models.load()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"", b"\x00" * 10, b"../../etc", None])
def test_a_damaged_pointer_is_named_and_can_be_replaced(models: Registry, content: bytes | None) -> None:
    version = models.publish(write)
    pointer = models.path / "current"
    pointer.unlink()
    pointer.mkdir() if content is None else pointer.write_bytes(content)
    for use in (models.current, models.load, models.rollback, lambda: models.prune(1)):
        with pytest.raises(ModelCorrupt, match=r"/current .*models promote VERSION"):
            use()
    if content is None:
        with pytest.raises(ModelCorrupt, match="/current is a folder"):
            models.promote(version)
        pointer.rmdir()
    models.promote(version)
    assert (models.current(), models.load().version) == (version, version)
    assert list(models.path.glob(".pointer-*")) == []


def test_readers_load_complete_bundles_while_others_publish_and_prune(models: Registry) -> None:
    models.publish(lambda folder: write(folder, 1))
    done, failures, versions = threading.Event(), [], set()

    def read() -> None:
        while not done.is_set():
            try:
                bundle = models.load(strict=True)
                versions.add(bundle.version)
                assert bundle.als is not None
            except Exception as error:  # noqa: BLE001 - the main thread asserts that there is none
                failures.append(repr(error))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(8):
        models.publish(lambda folder, number=number: write(folder, number + 2))
        models.prune(2)
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(versions) > 1


def test_no_file_of_a_bundle_can_execute_code(models: Registry) -> None:
    models.publish(write)
    for path in (models.path / str(models.current())).rglob("*"):
        if path.is_file():
            assert path.suffix in {".json", ".npy", ".npz"}
