"""A bundle: every part of one trained model under one version. docs/bundle.md shows the folder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from core.background import rest
from core.errors import ModelCorrupt, ModelError, ModelMissing
from core.types import Item
from models import files
from models.als import ALSModel
from models.content import ContentModel
from models.ensemble import Blend
from models.popular import PopularModel
from models.two_tower import TwoTowerModel

MANIFEST = "manifest.json"
CATALOGUE = "catalogue.json"

LOADERS: Mapping[str, Callable[[Path], Any]] = {
    "als": ALSModel.load,
    "content": ContentModel.load,
    "popular": PopularModel.load,
    "two_tower": TwoTowerModel.load,
    "ensemble": Blend.load,
}
"""Part -> how to load its folder. A new kind of model is one line here and one engine."""
OPTIONAL = frozenset({"two_tower", "ensemble"})
"""Parts that a bundle may go without: a retrain may leave Two-Tower out, and settings stand in for a blend."""

FORMAT = (1, 0)
"""Major and minor format of the bundles that this release writes. A newer minor adds fields and files that an older release passes
over; a newer major is refused, because what it changes would be misread."""

log = logging.getLogger(__name__)


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json. `format`: major.minor, see FORMAT. `files`: path -> sha256 of every other file; `positions`: the snapshot W,
    topic -> partition -> next offset."""

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
    """What serves. `missing`: part -> why it is not among `parts`; the other parts work."""

    version: str | None
    manifest: Manifest
    catalogue: list[Item]
    parts: Mapping[str, Any]
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def als(self) -> ALSModel | None:
        """The ALS part, or None: `missing["als"]` says why."""
        return self.parts.get("als")

    @property
    def content(self) -> ContentModel | None:
        """The content part, or None."""
        return self.parts.get("content")

    @property
    def popular(self) -> PopularModel | None:
        """Popularity when the bundle was made, or None."""
        return self.parts.get("popular")

    @property
    def ensemble(self) -> Blend | None:
        """The blend that tuning chose, or None: that of the settings."""
        return self.parts.get("ensemble")

    @property
    def two_tower(self) -> TwoTowerModel | None:
        """The Two-Tower part, or None."""
        return self.parts.get("two_tower")

    @classmethod
    def empty(cls, cause: str = "no bundle is published yet; run `python -m training retrain`") -> Bundle:
        """A bundle without a part: the popular engine still answers from live popularity and catalogue."""
        return cls(None, Manifest(), [], {}, {part: cause for part in LOADERS if part not in OPTIONAL})

    @classmethod
    def of(cls, version: str | None = None, catalogue: list[Item] | None = None, **parts: Any) -> Bundle:
        """A bundle from parts in memory, for notebooks, evaluation and tests: `Bundle.of(catalogue=items, als=model)`."""
        absent = [part for part in LOADERS if part not in OPTIONAL and parts.get(part) is None]
        missing = {part: f"the bundle was made without its part {part!r}" for part in absent}
        present = {name: part for name, part in parts.items() if part is not None}
        return cls(version, Manifest(version=version or ""), catalogue or [], present, missing)


class _Format(msgspec.Struct):
    format: str = "1.0"  # bundles that were made before the field


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`; fields that this release does not know are passed over. Raises ModelMissing, ModelCorrupt."""
    path = folder / MANIFEST
    format_ = files.read_json(path, _Format).format
    major, _, minor = format_.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise ModelCorrupt(f"{path}: format {format_!r} is not of the form major.minor")
    if int(major) > FORMAT[0]:
        raise ModelCorrupt(
            f"{path} has format {format_}, and this release reads {FORMAT[0]}.x: update this process, or roll back to an older version"
        )
    return files.read_json(path, Manifest)


def load(folder: Path, overrides: Mapping[str, Path | None] | None = None, strict: bool = False) -> Bundle:
    """The bundle in `folder`, each file verified against its sha256.

    A part that cannot be loaded goes to `missing`, with the cause, and to the log; with `strict` it raises.
    `overrides`: part -> folder of the same form to load instead (ALS_MODEL_PATH, TWO_TOWER_MODEL_PATH), not verified.
    Raises ModelMissing and ModelCorrupt for a folder without a readable manifest or catalogue.
    """
    manifest = read_manifest(folder)
    verify(folder, manifest, CATALOGUE)
    catalogue = files.read_entries(folder / CATALOGUE, list[Item])
    parts: dict[str, Any] = {}
    missing: dict[str, str] = {}
    chosen = {part: path for part, path in (overrides or {}).items() if path is not None}
    for part in [*LOADERS, *(part for part in chosen if part not in LOADERS)]:
        if part in OPTIONAL and part not in chosen and not any(name.startswith(part + "/") for name in manifest.files):
            continue
        try:
            rest()
            parts[part] = load_part(folder, manifest, part, chosen.get(part))
        except (ModelError, OSError, ValueError) as error:
            if strict:
                raise
            log.warning("part %s of bundle %s is not loaded: %s", part, manifest.version, error)
            missing[part] = str(error)
    return Bundle(manifest.version, manifest, catalogue, parts, missing)


def verify(folder: Path, manifest: Manifest, prefix: str = "") -> None:
    """Raises ModelCorrupt or ModelMissing, naming the first file that starts with `prefix` and is not what the manifest says."""
    names = [name for name in manifest.files if name.startswith(prefix)]
    if prefix and not names:
        raise ModelMissing(f"bundle {manifest.version} in {folder} has no {prefix.rstrip('/')}")
    for name in names:
        try:
            found = sha256(folder / name)
        except OSError as error:
            raise ModelMissing(f"{folder / name}: {error.strerror}; publish or copy the bundle again") from None
        if found != manifest.files[name]:
            raise ModelCorrupt(
                f"{folder / name} is damaged: sha256 {found[:12]}, the manifest says {manifest.files[name][:12]}; "
                "roll back, or copy the bundle again"
            )


def check_finite(folder: Path, manifest: Manifest) -> None:
    """Raises ModelCorrupt, naming the first file of arrays that holds NaN or infinity: its sha256 is right, and its scores are not."""
    for name in manifest.files:
        files.check_finite(folder / name)


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_part(folder: Path, manifest: Manifest, part: str, override: Path | None) -> Any:
    """One part, verified unless it comes from `override`. Raises ModelMissing, ModelCorrupt."""
    if part not in LOADERS:
        raise ModelMissing(f"{part.upper()}_MODEL_PATH={override} is set, but this release has no loader for {part}")
    if override is not None:
        return LOADERS[part](override)
    verify(folder, manifest, part + "/")
    return LOADERS[part](folder / part)
