"""Loads the users that the live bundle was trained on, when a route first needs them."""

from __future__ import annotations

from core.settings import Settings
from models.als.trained_users import TrainedUsers
from models.registry import Registry


class TrainedUserFiles:
    """The trained users of the bundle that answers. Not thread-safe: for the worker's thread.

    Most processes never load them.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.als_model_path
        self._registry = Registry(settings.models_path)
        self._loaded: tuple[str | None, TrainedUsers] | None = None

    def load(self, version: str | None) -> TrainedUsers:
        """Those of a bundle. Raises ModelMissing, ModelCorrupt, ValueError."""
        loaded = self._loaded
        if loaded is None or loaded[0] != version:
            folder = self._path or self._registry.path / str(version) / "als"
            loaded = self._loaded = (version, TrainedUsers.load(folder))
        return loaded[1]
