"""What the commands of `python -m streams` share: an option, and the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from core.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def load_settings() -> Settings:
    """The settings of the environment; the log is configured by them.

    Raises ConfigurationError.
    """
    from core import settings
    from core.process import logs

    loaded = settings.load()
    logs.configure(loaded.log_level)
    return loaded
