"""The registry shows a bundle as a whole or not at all; readers never see a part of it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from core.errors import ModelCorrupt, ModelMissing
from models import bundle, disk, files, registry
from models.pointer import Pointer
from models.registry import Registry
from tests.models.world import ITEMS, write


def test_a_published_bundle_is_live_and_complete(models: Registry) -> None:
    assert (models.versions(), models.current()) == ([], None)
    version = models.publish(
        write, {"seeds": {"training": 42}, "positions": {"interactions": {"0": 17}}}
    )
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


@pytest.mark.parametrize("step", ["manifest", "fsync", "pointer"])
def test_a_power_cut_between_the_steps_leaves_the_old_bundle_live(
    models: Registry, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 3, 4 and 6. A power cut runs no clean-up, so `rmtree` does nothing here."""
    live = models.publish(write)

    def cut(*_: object) -> None:
        raise SystemExit("power")

    def write_or_cut(path: Path, value: object) -> None:
        if path.name == bundle.MANIFEST:
            cut()
        write_json(path, value)

    write_json = files.write_json
    if step == "manifest":
        monkeypatch.setattr(files, "write_json", write_or_cut)
    elif step == "fsync":
        monkeypatch.setattr(disk, "fsync", cut)
    else:
        monkeypatch.setattr(Pointer, "write", cut)
    monkeypatch.setattr(registry.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(SystemExit):
        models.publish(write)
    monkeypatch.undo()
    assert models.current() == live
    assert models.load().version == live
    if step == "pointer":
        # step 5 is complete: a finished bundle that is not live yet
        assert len(models.versions()) == 2
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
    b = models.publish(
        lambda folder: write(folder, 2), {"settings": {"als_factors": 128, "als_alpha": 40}}
    )
    diff = models.diff(a, b)
    assert diff["settings.als_factors"] == (64, 128)
    assert "settings.als_alpha" not in diff
    assert "files.als/item_factors.npy" in diff


def test_an_unknown_manifest_field_is_rejected_and_nothing_is_published(models: Registry) -> None:
    with pytest.raises(ValueError, match="metricz"):
        models.publish(write, {"metricz": {}})
    assert models.versions() == []


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"", b"\x00" * 10, b"../../etc", None])
def test_a_damaged_pointer_is_named_and_can_be_replaced(
    models: Registry, content: bytes | None
) -> None:
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
