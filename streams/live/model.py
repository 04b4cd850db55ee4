"""The ALS part that a live worker folds in with: the live bundle's, followed as the API follows
it.
"""

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
"""Seconds until a version that could not be loaded is tried again."""


class Space:
    """One latent space: the model, and what vectors made in it say of themselves.

    Immutable but for the memory of `lines`.
    """

    def __init__(self, version: str, created: float, model: ALSModel, settings: Settings) -> None:
        """`created`: seconds since 1970."""
        self.version, self.created, self.model = version, created, model
        self.made_with = made_with(model, settings.use_cases, settings.history_cap)
        self.lines = Lines(model, settings.use_cases, history_event)


class LiveModel:
    """`space` is the live bundle's, None while there is none.

    Whoever folds in takes it once, so no vector mixes two of them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry(settings.models_path)
        self._tried: tuple[str | None, float] = (None, float("-inf"))
        self.space: Space | None = None

    def refresh(self) -> bool:
        """Look at the pointer, and swap to what it names; answers whether another space is live.

        Takes as long as loading takes.
        """
        if self.space is not None:
            metrics.live_model_age.set(time.time() - self.space.created)
        try:
            return self._followed(self._registry.current())
        except OSError as error:
            _log.warning("the pointer to the live bundle cannot be read", cause=str(error))
            return False

    def _followed(self, version: str | None) -> bool:
        serving = None if self.space is None else self.space.version
        tried, tried_at = self._tried
        if version == serving or (version == tried and time.monotonic() - tried_at < RETRY_S):
            return False
        self._tried = (version, time.monotonic())
        # the folder is gone for a moment: what is here stays right for what was made with it
        if version is None:
            return False
        started = time.perf_counter()
        try:
            created = self._registry.manifest(version).created
            model: ALSModel = self._registry.load_part(
                version, "als", self._settings.als_model_path
            )
            self.space = Space(
                version, datetime.fromisoformat(created).timestamp(), model, self._settings
            )
        except (ModelError, OSError, ValueError) as error:
            _log.warning(
                "this bundle's ALS part is not loaded; its vectors are left to the readers",
                version=version,
                cause=str(error),
            )
            return False
        took = time.perf_counter() - started
        metrics.live_swap.observe(took)
        _log.info(
            "folding in with",
            version=version,
            was=serving,
            items=len(model.item_ids),
            factors=model.factors,
            seconds=round(took, 3),
        )
        if model.user_gram is None:
            _log.warning(
                "this ALS part was saved without user_gram.npy: items that it does not "
                "know get no factors; retrain to have one"
            )
        return True
