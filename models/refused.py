"""Keeps the evaluation of the last bundle that the gate refused.

It is a folder beside the bundles, with manifest.json and the files of a bundle's evaluation/. It
has no models, and no reader takes it for a version.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from models import files
from models.bundle import MANIFEST, Manifest, read_manifest, sha256
from models.registry import Registry

NAME = "refused"
"""The folder in MODELS_PATH; `models show` and `report --model` take it for a version."""
EVALUATION = "evaluation"

log = structlog.get_logger(__name__)


def save(registry: Registry, about: Mapping[str, Any], write: Callable[[Path], None]) -> None:
    """Replace the folder: `about` becomes its manifest, `write(folder)` writes the evaluation.

    A full disk must not hide the refusal, so it is only logged.
    """
    folder = registry.path / NAME
    try:
        # the name is one that readers ignore, and `prune` removes what a kill leaves
        with tempfile.TemporaryDirectory(prefix=".new-", dir=registry.path) as hidden:
            staging = Path(hidden) / NAME
            evaluation = staging / EVALUATION
            evaluation.mkdir(parents=True)
            write(evaluation)
            digests = {f"{EVALUATION}/{path.name}": sha256(path) for path in evaluation.iterdir()}
            created = datetime.now(UTC).isoformat()
            fields = {"version": NAME, "created": created, "files": digests}
            refused = msgspec.convert({**about, **fields}, Manifest)
            files.write_json(staging / MANIFEST, refused)
            shutil.rmtree(folder, ignore_errors=True)
            staging.rename(folder)
    except OSError as error:
        log.warning("refused_evaluation_not_written", folder=str(folder), error=str(error))


def read(registry: Registry) -> Manifest:
    """The manifest of the last refused bundle. Raises ModelMissing, ModelCorrupt."""
    return read_manifest(registry.path / NAME)
