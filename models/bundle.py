"""Loads and verifies a bundle: all parts of a trained model under one version, in one folder.

docs/bundle.md shows the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog

from core.errors import ModelCorrupt, ModelError, ModelMissing
from core.process.background import pause
from core.shared_items import SharedParts
from core.types import Item
from models import files
from models.als import ALSModel
from models.content import ContentModel
from models.ensemble import Blend
from models.popular import PopularModel
from models.router.thresholds import PreferredThresholds
from models.two_tower import TwoTowerModel

MANIFEST = "manifest.json"
CATALOGUE = "catalogue.json"

LOADERS: Mapping[str, Callable[..., Any]] = {
    "als": ALSModel.load,
    "content": ContentModel.load,
    "popular": PopularModel.load,
    "two_tower": TwoTowerModel.load,
    "ensemble": Blend.load,
    "router": PreferredThresholds.load,
}
"""Part -> loader of its folder. A new kind of model needs one line here and one engine."""
MAPPABLE = frozenset({"als", "content", "two_tower"})
"""Parts whose loader has the option `mapped`: their arrays are large."""
OPTIONAL = frozenset({"two_tower", "ensemble", "router"})
"""Parts that a bundle may lack: a retrain may skip Two-Tower, and settings replace the others."""

FORMAT = (1, 0)
"""Major and minor format of the bundles that this release writes. A newer minor only adds fields
and files, which an older release ignores. A newer major changes the meaning of existing ones, so an
older release refuses it."""

_log = structlog.get_logger("models")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json: what the bundle contains and how it was trained.

    `format`: major.minor, see FORMAT. `files`: path -> sha256 of every other file. `positions`: the
    snapshot, topic -> partition -> next offset.
    """

    format: str = ".".join(map(str, FORMAT))
    version: str = ""
    created: str = ""
    parts: list[str] = []
    files: dict[str, str] = {}
    positions: dict[str, dict[str, int]] = {}
    seeds: dict[str, int] = {}
    settings: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    libraries: dict[str, str] = {}
    gate: dict[str, Any] = {}


@dataclass(frozen=True)
class Bundle:
    """The loaded parts of one version. `missing`: part -> why it could not be loaded."""

    version: str | None
    manifest: Manifest
    catalogue: list[Item]
    parts: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def als(self) -> ALSModel | None:
        """The ALS part, or None; then `missing["als"]` has the cause."""
        return self.parts.get("als")

    @property
    def content(self) -> ContentModel | None:
        """The content part, or None."""
        return self.parts.get("content")

    @property
    def popular(self) -> PopularModel | None:
        """Popularity at the time of the retrain, or None."""
        return self.parts.get("popular")

    @property
    def ensemble(self) -> Blend | None:
        """The blend that the retrain tuned, or None: the settings apply."""
        return self.parts.get("ensemble")

    @property
    def router(self) -> PreferredThresholds | None:
        """The router's thresholds that its validation users prefer, or None."""
        return self.parts.get("router")

    @property
    def two_tower(self) -> TwoTowerModel | None:
        """The Two-Tower part, or None."""
        return self.parts.get("two_tower")

    @classmethod
    def empty(
        cls, cause: str = "no bundle is published yet; run `python -m training retrain`"
    ) -> Bundle:
        """A bundle without parts: only the popular engine answers, from live data."""
        return cls(
            None, Manifest(), [], {}, {part: cause for part in LOADERS if part not in OPTIONAL}
        )

    @classmethod
    def of(
        cls, version: str | None = None, catalogue: list[Item] | None = None, **parts: Any
    ) -> Bundle:
        """A bundle of parts in memory, for evaluation, notebooks and tests.

        Example: `Bundle.of(catalogue=items, als=model)`.
        """
        absent = [part for part in LOADERS if part not in OPTIONAL and parts.get(part) is None]
        missing = {part: f"the bundle was made without its part {part!r}" for part in absent}
        present = {name: part for name, part in parts.items() if part is not None}
        return cls(version, Manifest(version=version or ""), catalogue or [], present, missing)


class _Format(msgspec.Struct):
    format: str = "1.0"  # the default is for bundles without the field, which are older


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`; unknown fields are ignored.

    Raises ModelMissing, and ModelCorrupt also for a newer major format.
    """
    path = folder / MANIFEST
    format_ = files.read_json(path, _Format).format
    major, _, minor = format_.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise ModelCorrupt(f"{path}: format {format_!r} is not of the form major.minor")
    if int(major) > FORMAT[0]:
        raise ModelCorrupt(
            f"{path} has format {format_}, and this release reads {FORMAT[0]}.x: update "
            f"this process, or roll back to an older version"
        )
    return files.read_json(path, Manifest)


def load(
    folder: Path,
    overrides: Mapping[str, Path | None] | None = None,
    strict: bool = False,
    mapped: bool = False,
) -> Bundle:
    """Load the bundle in `folder`, each file verified against its sha256.

    `overrides`: part -> folder of the same form to load instead (ALS_MODEL_PATH,
    TWO_TOWER_MODEL_PATH), not verified. A part that cannot be loaded is recorded in `missing` with
    the cause, and logged; with `strict` the error is raised. `mapped`: as for `load_part`.
    Raises ModelMissing and ModelCorrupt when the manifest or the catalogue cannot be read.
    """
    manifest = read_manifest(folder)
    verify(folder, manifest, CATALOGUE)
    catalogue = files.read_entries(folder / CATALOGUE, list[Item], SharedParts().share)
    parts: dict[str, Any] = {}
    missing: dict[str, str] = {}
    paths = {part: path for part, path in (overrides or {}).items() if path is not None}
    for part in [*LOADERS, *(part for part in paths if part not in LOADERS)]:
        if (
            part in OPTIONAL
            and part not in paths
            and not any(name.startswith(part + "/") for name in manifest.files)
        ):
            continue
        try:
            pause()
            parts[part] = load_part(folder, manifest, part, paths.get(part), mapped)
        except (ModelError, OSError, ValueError) as error:
            if strict:
                raise
            _log.warning("part_not_loaded", part=part, version=manifest.version, cause=str(error))
            missing[part] = str(error)
    return Bundle(manifest.version, manifest, catalogue, parts, missing)


def verify(folder: Path, manifest: Manifest, prefix: str = "") -> None:
    """Check the files whose names start with `prefix` against the manifest.

    Raises ModelCorrupt or ModelMissing, which name the first file that differs or is absent.
    """
    names = [name for name in manifest.files if name.startswith(prefix)]
    if prefix and not names:
        raise ModelMissing(f"bundle {manifest.version} in {folder} has no {prefix.rstrip('/')}")
    for name in names:
        try:
            digest = sha256(folder / name)
        except OSError as error:
            raise ModelMissing(
                f"{folder / name}: {error.strerror}; publish or copy the bundle again"
            ) from None
        if digest != manifest.files[name]:
            raise ModelCorrupt(
                f"{folder / name} is damaged: sha256 {digest[:12]}, the manifest says "
                f"{manifest.files[name][:12]}; "
                "roll back, or copy the bundle again"
            )


def check_finite(folder: Path, manifest: Manifest) -> None:
    """Check all arrays for NaN and infinity, which a sha256 does not detect.

    Raises ModelCorrupt, which names the first such file.
    """
    for name in manifest.files:
        files.check_finite(folder / name)


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_part(
    folder: Path, manifest: Manifest, part: str, override: Path | None, mapped: bool = False
) -> Any:
    """Load one part, verified unless `override` replaces it.

    `mapped`: share the memory of its arrays with other processes (models.files.read_floats). A
    published bundle is never written again; `override` may be, so it is copied into memory.
    Raises ModelMissing, ModelCorrupt.
    """
    if part not in LOADERS:
        raise ModelMissing(
            f"{part.upper()}_MODEL_PATH={override} is set, but this release has no loader "
            f"for {part}"
        )
    if override is not None:
        return LOADERS[part](override)
    verify(folder, manifest, part + "/")
    if mapped and part in MAPPABLE:
        return LOADERS[part](folder / part, mapped=True)
    return LOADERS[part](folder / part)
