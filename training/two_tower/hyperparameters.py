"""Reads the hyperparameters of Two-Tower from the settings, or from the file that `tune` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from core.contract import problems
from core.errors import ConfigurationError
from core.settings import Settings

SEARCHED = ("dimension", "layers", "dropout", "id_dropout", "learning_rate")
"""Those that a search varies; what makes reads slower (history, heads) stays as configured."""


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    """Hyperparameters of a fit; the settings TWO_TOWER_... describe each."""

    dimension: int = 64
    layers: int = 2
    heads: int = 2
    history: int = 50
    dropout: float = 0.2
    id_dropout: float = 0.1
    learning_rate: float = 0.002
    epochs: int = 15
    patience: int = 4
    candidates: int = 2048


def hyperparameters(settings: Settings, path: Path | None = None) -> Hyperparameters:
    """Return the hyperparameters of the settings, replaced by those in the JSON file at `path`.

    `training tune` writes the file; its values are checked as settings are. Raises
    ConfigurationError.
    """
    if path is not None:
        settings = _with_file(settings, path)
    names = Hyperparameters.__struct_fields__
    return Hyperparameters(**{name: getattr(settings, f"two_tower_{name}") for name in names})


def _with_file(settings: Settings, path: Path) -> Settings:
    try:
        sections = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, Any]])
        values = sections.get("two_tower", {}).items()
        return settings.with_overrides({f"two_tower_{name}": value for name, value in values})
    except (OSError, msgspec.MsgspecError, ConfigurationError) as error:
        raise ConfigurationError(
            f"{path} holds no hyperparameters of Two-Tower "
            f"({problems.in_words(error, noun='file')}); `python -m training tune` writes some"
        ) from None
