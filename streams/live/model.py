"""Follows the live bundle and loads its ALS part, with which a live worker folds in."""

from __future__ import annotations

import time
from datetime import datetime

import structlog

from core.errors import ModelError
from core.settings import Settings
from engines.fold import Lines, made_with
from models.als import ALSModel
from models.registry import Registry
from store.state.entities.users import history_event
from streams import metrics

_log = structlog.get_logger(__name__)

RETRY_S = 10.0
"""Seconds until a version that could not be loaded is loaded again."""


class Space:
    """One latent space: a model, and the `version` and `made_with` of the vectors made in it.

    Immutable, except for the cache of `lines`.
    """

    def __init__(self, version: str, created: float, model: ALSModel, settings: Settings) -> None:
        """`created`: seconds since 1970."""
        self.version, self.created, self.model = version, created, model
        self.made_with = made_with(model, settings.use_cases, settings.history_cap)
        self.lines = Lines(model, settings.use_cases, history_event)


class LiveModel:
    """Holds the live bundle's `space`, None while there is none.

    A fold-in reads `space` once, so no vector mixes two spaces.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry(settings.models_path)
        self._last_attempt: tuple[str | None, float] = (None, float("-inf"))
        self.space: Space | None = None

    def refresh(self) -> bool:
        """Load the bundle that the registry's pointer names, if it is another one.

        Blocks until it is loaded. Returns whether `space` has changed.
        """
        if self.space is not None:
            metrics.live_model_age.set(time.time() - self.space.created)
        try:
            return self._load(self._registry.current())
        except OSError as error:
            _log.warning("bundle_pointer_unreadable", cause=str(error))
            return False

    def _load(self, version: str | None) -> bool:
        previous = None if self.space is None else self.space.version
        attempted, attempted_at = self._last_attempt
        if version == previous or (
            version == attempted and time.monotonic() - attempted_at < RETRY_S
        ):
            return False
        self._last_attempt = (version, time.monotonic())
        # No bundle is live for a moment: the loaded one stays valid for the vectors made with it.
        if version is None:
            return False
        started = time.perf_counter()
        try:
            created = self._registry.manifest(version).created
            model: ALSModel = self._registry.load_part(
                version, "als", self._settings.als_model_path, self._settings.models_mapped
            )
            self.space = Space(
                version, datetime.fromisoformat(created).timestamp(), model, self._settings
            )
        except (ModelError, OSError, ValueError) as error:
            _log.warning("als_part_not_loaded", version=version, cause=str(error))
            return False
        seconds = time.perf_counter() - started
        metrics.live_swap.observe(seconds)
        _log.info(
            "als_part_loaded",
            version=version,
            previous=previous,
            items=len(model.item_ids),
            factors=model.factors,
            seconds=round(seconds, 3),
        )
        if model.user_gram is None:
            _log.warning(
                "new_items_disabled",
                version=version,
                cause="the ALS part has no user_gram.npy; retrain to get factors of new items",
            )
        return True
