"""Publishing: a bundle appears whole or not at all, whatever dies, and readers never see half of one."""

from __future__ import annotations

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


def test_before_the_first_bundle_the_error_says_what_to_run(models: Registry) -> None:
    with pytest.raises(ModelMissing, match="training retrain"):
        models.load()
    with pytest.raises(ModelMissing, match="no version"):
        models.load("../../etc")


def test_a_writer_that_dies_leaves_the_old_bundle_live(models: Registry) -> None:
    """Step 2 raises half-way."""
    live = models.publish(write)

    def dies(folder: Path) -> None:
        (folder / "als").mkdir()
        (folder / "als" / "half.npy").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.publish(dies)
    assert (models.versions(), models.current()) == ([live], live)
    assert not list(models.path.glob(".new-*"))


@pytest.mark.parametrize("step", ["_fsync", "_seal", "_point"])
def test_a_power_cut_between_the_steps_leaves_the_old_bundle_live(models: Registry, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps 4, 3 and 6. A power cut runs no clean-up, so the folder that `finally` would remove is put back."""
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
        assert len(models.versions()) == 2  # step 5 was done: a finished bundle that nobody serves yet
    else:
        assert models.versions() == [live]
        assert list(models.path.glob(".new-*"))


def test_what_dead_publishers_left_is_pruned_after_a_day_and_not_before(models: Registry) -> None:
    models.publish(write)
    old, young = models.path / ".new-dead", models.path / ".new-alive"
    old.mkdir()
    young.mkdir()
    (models.path / ".pointer-dead").write_text("x")
    yesterday = time.time() - registry.ABANDONED_S - 60
    for leftover in (old, models.path / ".pointer-dead"):
        os.utime(leftover, (yesterday, yesterday))
    models.prune(5)
    assert sorted(path.name for path in models.path.glob(".*")) == [".new-alive"]


def test_a_damaged_part_is_named_and_the_others_work(models: Registry) -> None:
    models.publish(write)
    broken = models.path / str(models.current()) / "als" / "item_factors.npy"
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    bundle = models.load()
    assert bundle.als is None
    assert bundle.content is not None
    assert bundle.popular is not None
    assert "item_factors.npy is damaged" in bundle.missing["als"]
    with pytest.raises(ModelCorrupt, match=r"item_factors\.npy"):
        models.load(strict=True)
    with pytest.raises(ModelCorrupt, match=r"item_factors\.npy"):
        models.promote(str(models.current()))


def test_a_part_that_is_gone_is_named_and_the_others_work(models: Registry) -> None:
    models.publish(write)
    (models.path / str(models.current()) / "content" / "idf.npy").unlink()
    bundle = models.load()
    assert bundle.content is None
    assert bundle.als is not None
    assert "idf.npy" in bundle.missing["content"]


def test_a_bundle_without_a_part_says_so(models: Registry) -> None:
    models.publish(lambda folder: PopularModel({}).save(folder / "popular"))
    assert models.load().missing.keys() == {"als", "content"}


@pytest.mark.parametrize("name", ["manifest.json", CATALOGUE])
def test_without_manifest_or_catalogue_there_is_no_bundle(models: Registry, name: str) -> None:
    models.publish(write)
    (models.path / str(models.current()) / name).write_text("[")
    with pytest.raises(ModelCorrupt, match=name.replace(".", r"\.")):
        models.load()


def test_paths_override_parts_and_a_bad_path_costs_only_its_part(models: Registry, tmp_path: Path) -> None:
    models.publish(write)
    ALSModel(IdMap(["z"]), np.ones((1, 3), dtype=np.float32), regularization=0.1, alpha=1).save(tmp_path / "mine")
    bundle = models.load(als_path=tmp_path / "mine")
    assert bundle.als is not None
    assert bundle.als.item_ids.ids == ["z"]
    bundle = models.load(als_path=tmp_path / "nothing", two_tower_path=tmp_path / "tower")
    assert bundle.als is None
    assert "nothing" in bundle.missing["als"]
    assert "tower" in bundle.missing["two_tower"]


def test_rollback_goes_back_through_what_was_live(models: Registry) -> None:
    first, second = models.publish(write), models.publish(write)
    refused = models.publish(write, promote=False)
    assert len({first, second, refused}) == 3
    assert models.current() == second
    assert models.rollback() == first
    assert models.current() == first
    with pytest.raises(ModelMissing, match="promote one of"):
        models.rollback()
    models.promote(refused)
    assert models.rollback() == first


def test_prune_keeps_the_newest_and_never_removes_the_live_one(models: Registry) -> None:
    versions = [models.publish(write) for _ in range(5)]
    models.promote(versions[0])
    assert models.prune(2) == versions[1:3]
    assert models.versions() == [versions[0], *versions[3:]]
    assert models.load().version == versions[0]


def test_diff_says_what_two_versions_were_made_with(models: Registry) -> None:
    a = models.publish(write, {"settings": {"als_factors": 64, "als_alpha": 40}})
    b = models.publish(lambda folder: write(folder, 2), {"settings": {"als_factors": 128, "als_alpha": 40}})
    diff = models.diff(a, b)
    assert diff["settings.als_factors"] == (64, 128)
    assert "settings.als_alpha" not in diff
    assert "files.als/item_factors.npy" in diff


def test_an_unknown_field_of_the_manifest_is_refused_before_anything_appears(models: Registry) -> None:
    with pytest.raises(ValueError, match="metricz"):
        models.publish(write, {"metricz": {}})
    assert models.versions() == []


def test_readers_see_only_whole_bundles_while_others_publish_and_prune(models: Registry) -> None:
    models.publish(lambda folder: write(folder, 1))
    done, failures, seen = threading.Event(), [], set()

    def read() -> None:
        while not done.is_set():
            try:
                bundle = models.load(strict=True)
                seen.add(bundle.version)
                assert bundle.als is not None
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
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
    assert len(seen) > 1


def test_nothing_in_a_bundle_executes_code_when_loaded(models: Registry) -> None:
    models.publish(write)
    for path in (models.path / str(models.current())).rglob("*"):
        if path.is_file():
            assert path.suffix in {".json", ".npy", ".npz"}
