"""Publishes, promotes, loads and removes bundles in one folder.

A bundle becomes visible as a whole or not at all, and a promotion replaces one file. Publishing:
    1. create a folder with a name that readers ignore (`.new-...`)
    2. the caller writes the parts into it
    3. write manifest.json with the sha256 of each file
    4. fsync every file and folder
    5. rename the folder to the version
    6. replace the pointer `current`
A crash before 5 leaves a hidden folder, which `prune` removes later. A crash before 6 leaves the
previous bundle live.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from core.errors import DiskFull, ModelCorrupt, ModelMissing
from models import bundle, disk, files
from models.bundle import Bundle, Manifest
from models.pointer import VERSION, Pointer

ABANDONED_S = 24 * 3600
"""Age in seconds of an unfinished folder whose publisher is dead: no retrain writes for a day."""

_log = structlog.get_logger("models")


class Registry:
    """The bundles in one folder. Any number of processes may read while one publishes."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._pointer = Pointer(self.path)

    def versions(self) -> list[str]:
        """All finished versions, oldest first."""
        if not self.path.is_dir():
            return []
        return sorted(
            (
                entry.name
                for entry in self.path.iterdir()
                if VERSION.fullmatch(entry.name) and entry.is_dir()
            ),
            key=_order,
        )

    def current(self) -> str | None:
        """The live version, or None before the first promotion. Raises ModelCorrupt."""
        return next(iter(self._pointer.read()), None)

    def manifest(self, version: str) -> Manifest:
        """The manifest of `version`. Raises ModelMissing, ModelCorrupt."""
        return bundle.read_manifest(self._folder(version))

    def load(
        self,
        version: str | None = None,
        als_path: Path | None = None,
        two_tower_path: Path | None = None,
        strict: bool = False,
        mapped: bool = False,
    ) -> Bundle:
        """Load and verify the bundle `version`; None: the live one.

        The paths replace its parts; see `models.bundle.load`, also for `strict` and `mapped`.
        Raises ModelMissing, ModelCorrupt.
        """
        overrides = {"als": als_path, "two_tower": two_tower_path}
        if version is not None:
            return bundle.load(self._folder(version), overrides, strict, mapped)
        live = self._live()
        try:
            loaded = bundle.load(self.path / live, overrides, strict, mapped)
        except ModelMissing:
            if (latest := self._live()) == live:
                raise
        else:
            if not loaded.missing or (latest := self._live()) == live:
                return loaded
        # Another version was promoted and the old one pruned while this call read it.
        return bundle.load(self.path / latest, overrides, strict, mapped)

    def load_part(
        self, version: str, part: str, override: Path | None = None, mapped: bool = False
    ) -> Any:
        """Load one part of the bundle `version`, or the folder `override` in its place.

        `mapped`: see `models.bundle.load_part`. Raises ModelMissing, ModelCorrupt.
        """
        folder = self._folder(version)
        return bundle.load_part(folder, bundle.read_manifest(folder), part, override, mapped)

    def verify(self, version: str) -> None:
        """Check all files against the manifest, and arrays for NaN and infinity.

        Raises ModelCorrupt or ModelMissing, which name the first such file.
        """
        folder, manifest = self._folder(version), self.manifest(version)
        bundle.verify(folder, manifest)
        bundle.check_finite(folder, manifest)

    def publish(
        self,
        write: Callable[[Path], None],
        manifest: Mapping[str, Any] | None = None,
        promote: bool = True,
    ) -> str:
        """Publish the files that `write(folder)` writes; returns the version.

        `manifest`: fields of `models.bundle.Manifest` except version, created, parts and files,
        which this method fills in. Raises DiskFull, and passes an exception of `write` on; after
        both the registry is unchanged. The numbers are those of the module docstring.
        """
        staging: Path | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".new-", dir=self.path))  # 1
            staging.chmod(0o755)  # mkdtemp creates 0700; the API may run as another user
            write(staging)  # 2
            version = self._seal(staging, manifest or {})  # 3, 4, 5
        except BaseException as error:
            if staging is not None:
                shutil.rmtree(staging, ignore_errors=True)
            if isinstance(error, OSError) and disk.is_full(error):
                raise self._disk_full("a new bundle") from error
            raise
        if promote:
            self.promote(version)  # 6
        return version

    def promote(self, version: str) -> None:
        """Verify `version` and make it live.

        Raises ModelMissing and ModelCorrupt: a damaged bundle never goes live. A damaged pointer is
        replaced; the versions that were live before are then lost for `rollback`.
        """
        self.verify(version)
        try:
            promoted = self._pointer.read()
        except ModelCorrupt as error:
            _log.warning("pointer_replaced", cause=str(error))
            promoted = []
        self._point([version, *(other for other in promoted if other != version)])

    def rollback(self) -> str:
        """Make the previously live version live again, and return it.

        Raises ModelMissing when there is none, ModelCorrupt when it is damaged.
        """
        promoted = self._pointer.read()
        existing = set(self.versions())
        previous = [version for version in promoted[1:] if version in existing]
        if not previous:
            raise ModelMissing(
                f"no bundle in {self.path} was live before {promoted[0] if promoted else 'this'}; "
                f"promote one of: {', '.join(sorted(existing, key=_order)) or 'none'}"
            )
        self.verify(previous[0])
        self._point(previous)
        return previous[0]

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` versions and the live one; returns the removed versions.

        Also removes unfinished folders of dead publishers (ABANDONED_S).
        """
        live = self.current()
        removed = [version for version in self.versions()[: -keep or None] if version != live]
        for version in removed:
            hidden = Path(tempfile.mkdtemp(prefix=".old-", dir=self.path))
            # hides it from readers before the slow removal
            (self.path / version).rename(hidden / version)
            shutil.rmtree(hidden, ignore_errors=True)
        for leftover in self.path.glob(".*-*"):
            if (
                leftover.name.startswith((".new-", ".old-", ".pointer-"))
                and time.time() - leftover.stat().st_mtime > ABANDONED_S
            ):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        return removed

    def diff(self, a: str, b: str) -> dict[str, tuple[Any, Any]]:
        """Differences between two manifests: dotted name -> (value in `a`, value in `b`).

        A field that is absent has the value None. Raises ModelMissing, ModelCorrupt.
        """
        left, right = (_flat(msgspec.to_builtins(self.manifest(version))) for version in (a, b))
        names = sorted(left.keys() | right.keys())
        return {
            name: (left.get(name), right.get(name))
            for name in names
            if left.get(name) != right.get(name)
        }

    def _seal(self, staging: Path, fields: Mapping[str, Any]) -> str:
        if not (staging / bundle.CATALOGUE).is_file():
            files.write_json(staging / bundle.CATALOGUE, [])
        paths = sorted(path for path in staging.rglob("*") if path.is_file())
        digests = {path.relative_to(staging).as_posix(): bundle.sha256(path) for path in paths}
        parts = sorted({name.split("/")[0] for name in digests if "/" in name})
        now = datetime.now(UTC)
        stem = now.strftime("%Y-%m-%dT%H-%M-%SZ")
        number = 1
        if unknown := fields.keys() - set(Manifest.__struct_fields__):
            raise ValueError(f"a manifest has no field {', '.join(sorted(unknown))}")
        while True:
            version = stem if number == 1 else f"{stem}-{number}"
            manifest = msgspec.convert(
                {
                    **fields,
                    "version": version,
                    "created": now.isoformat(),
                    "parts": parts,
                    "files": digests,
                },
                Manifest,
            )
            files.write_json(staging / bundle.MANIFEST, manifest)
            folders = [path for path in staging.rglob("*") if path.is_dir()]
            for path in [*paths, staging / bundle.MANIFEST, *folders, staging]:
                disk.fsync(path)
            try:
                staging.rename(self.path / version)
            except OSError:
                if not (self.path / version).exists():
                    raise
                number += 1  # another publisher used the name of this second
                continue
            disk.fsync(self.path)
            return version

    def _folder(self, version: str) -> Path:
        if not VERSION.fullmatch(version) or not (self.path / version).is_dir():
            raise ModelMissing(
                f"{self.path} has no version {version!r}; versions: "
                f"{', '.join(self.versions()) or 'none'}"
            )
        return self.path / version

    def _live(self) -> str:
        if (live := self.current()) is None:
            raise ModelMissing(
                f"no bundle is published in {self.path} yet; run `python -m training retrain`"
            )
        return live

    def _point(self, versions: list[str]) -> None:
        try:
            self._pointer.write(versions)
        except OSError as error:
            if disk.is_full(error):
                raise self._disk_full("the pointer") from error
            raise

    def _disk_full(self, what: str) -> DiskFull:
        """The error for `what`, to be called after the removal of its partial files.

        The free bytes are then those that `what` did not fit into.
        """
        free = disk.free_bytes(self.path)
        live = next(iter(self._pointer.read()), None)
        live_size = ""
        if live:
            size = disk.folder_bytes(self.path / live)
            live_size = f"; the live bundle {live} takes {size:,} bytes and still serves"
        return DiskFull(
            f"no space for {what} in {self.path}: it needs more than the {free:,} bytes "
            f"that are free{live_size}. "
            "Free space, or lower KEEP_BUNDLES, and run it again"
        )


def _order(version: str) -> tuple[str, int]:
    stem, _, number = version.partition("Z")
    return stem, int(number[1:] or 1)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, field in value.items():
        if isinstance(field, Mapping):
            flat.update(_flat(field, f"{prefix}{name}."))
        else:
            flat[prefix + name] = field
    return flat
