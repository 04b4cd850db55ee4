"""Serves the live recommender: one immutable object that every answer is made from.

A thread in the background replaces it, as one reference, when the bundle, the catalogue, the new
items or popularity have changed.
"""

from __future__ import annotations

import threading
import time

import structlog

from api.health import Health, ShardHealth
from api.live_view.bundles import BundleLoader, collector_paused, free_gradually
from api.live_view.catalogue import CatalogueFollower
from api.live_view.new_items import NewItemFollower
from api.live_view.popularity import OfShard, PopularityFollower
from api.metrics import Metrics
from core.deletions import IdHasher
from core.errors import (
    ConfigurationError,
    ModelError,
    SlotMoving,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)
from core.experiments import Variant
from core.process.background import in_background, pause
from core.settings import Settings
from core.types import Request, UserState
from engines.builder import build, with_catalogue, with_new_items, with_popularity, with_settings
from engines.catalogue import Catalogue
from engines.popular import PopularEngine, Windows
from engines.recommender import Recommender
from engines.selection.filters import conditions, defaults
from models.bundle import Bundle
from models.popular import Popularity
from store.log.topics.ids import TopicIds
from store.log.topics.partitions import Partitions
from store.state import shard_numbers
from store.state.connection import Client
from store.state.entities.experiments import Exposures
from store.state.read_users import ReadUsers
from store.state.shards import Shards

_log = structlog.get_logger(__name__)
REDIS_TIMEOUT_S = 1.0
"""Seconds that a refresh waits for one answer of Redis; only the start of the process waits for a
refresh.
"""


class LiveView:
    """Holds the live Recommender in `current`.

    `refresh` brings it up to date; `start` does so every REFRESH_S in a thread of its own. A
    request reads `current` once and answers from that object alone, so no answer mixes two
    bundles, catalogues or popularities.
    """

    def __init__(
        self,
        settings: Settings,
        health: Health,
        metrics: Metrics,
        partitions: Partitions,
        topic_ids: TopicIds,
    ) -> None:
        self._settings, self._health, self._metrics = settings, health, metrics
        self._shards = Shards(settings, REDIS_TIMEOUT_S)
        self.shard_health = ShardHealth(health)
        self._bundles = BundleLoader(settings)
        self._catalogue = CatalogueFollower(settings, partitions, topic_ids)
        self._new_items = NewItemFollower()
        self._popularity = PopularityFollower(settings)
        self._started = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-view", daemon=True)
        self._experiments = settings.experiments
        self._variant_settings = {
            variant.id: settings.with_overrides(variant.overrides)
            for variant in self._experiments.by_id.values()
        }
        self.exposures = Exposures(
            self._experiments,
            settings.experiment_users,
            metrics.exposures_lost.inc,
            IdHasher(settings.deletion_salt),
            settings.redis_shards,
        )
        self.read_users = ReadUsers(settings.live_read_s)
        self._notes_refused = False
        self._variants: dict[str, Recommender] = {}
        self._serve(build(Bundle.empty(), settings=settings))
        self.catalogue_items = 0

    @property
    def items_applied(self) -> list[int]:
        """By partition of the items topic: every message below this offset is in `current`."""
        return self._catalogue.items_applied

    def start(self) -> None:
        """Refresh every REFRESH_S until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, write the last exposures, close the connections."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for client in self._shards:
            try:
                self.exposures.write(client)
            except StoreError as error:
                _log.warning("exposures_lost", error=str(error))
        self._shards.close()

    def of_user(self, user_id: str, use_case: str | None) -> tuple[Recommender, Variant | None]:
        """The recommender that answers a user now, and the variant of an experiment that it is.

        Read it once per request, as `current`.
        """
        variant = self._experiments.assign(user_id, use_case)
        return (self.current, None) if variant is None else (self._variants[variant.id], variant)

    def refresh(self) -> None:
        """Check once the bundle pointer, the catalogue, the new items and popularity.

        A part that fails is reported to Health; the other parts go on.
        """
        if not self._started:
            self._started = True
            restored = self._catalogue.load_snapshot(self.current.bundle)
            if restored is not None:
                self._swap_catalogue(restored)
        try:
            self._refresh_bundle()
        except (ModelError, OSError) as error:
            self._health.mark_failed("model", str(error))
        self._refresh_from_redis()

    def _refresh_from_redis(self) -> None:
        """Read each shard and write to it. A shard that fails is reported; the others go on."""
        self._popularity.begin()
        popularity: list[OfShard] = []
        for shard, client in enumerate(self._shards):
            try:
                if shard == 0:
                    shard_numbers.check(client)
                    self._refresh_items(client)
                popularity.append(self._popularity.read(client))
                self.exposures.write(client)
            except ConfigurationError as error:  # users with a history would look new
                for failing in range(len(self._shards)):
                    self.shard_health.mark_failed(failing, str(error))
                return
            except SlotMoving as error:  # the shard answers: reads of users find their keys
                _log.debug("shard_moving", shard=shard, error=str(error))
                self.shard_health.mark_working(shard)
            except StoreError as error:
                self.shard_health.mark_failed(shard, str(error))
                if not self._catalogue.redis_was_read:
                    self._health.mark_failed(
                        "catalogue", self._catalogue.uncertainty(self.current.bundle)
                    )
            else:
                self.shard_health.mark_working(shard)
        if len(popularity) == len(self._shards):
            self._popularity.update(popularity, self.current, self._swap_popularity)
            self._metrics.refreshed.set_to_current_time()
        self._write_read_users()

    def _refresh_items(self, client: Client) -> None:
        """Read the catalogue and the new items in shard 0. Raises StoreError."""
        self._catalogue.refresh(client, self.current, self._swap_catalogue)
        self._health.mark_working("catalogue")
        if self._new_items.refresh(client):
            self._swap(with_new_items(self.current, self._new_items.factors(self.current)))

    def _write_read_users(self) -> None:
        """Without a permission for it, no answer is worse: the log says so once."""
        try:
            self.read_users.write(self._shards)
        except StoreUnavailable as error:  # a hint for live workers: reads fold in themselves
            _log.debug("read_users_not_written", error=str(error))
        except StoreMisconfigured as error:
            if not self._notes_refused:
                self._notes_refused = True
                _log.warning("read_users_not_noted", error=str(error))

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.refresh_s):
            try:
                with in_background():
                    self.refresh()
                self._health.mark_working("refresh")
            except Exception as error:  # noqa: BLE001 - readers keep the recommender they have, and the next refresh tries again
                _log.exception("refresh_failed")
                self._health.mark_failed("refresh", f"{type(error).__name__}: {error}")

    def _refresh_bundle(self) -> None:
        version, serving = self._bundles.current(), self.current.bundle
        if version is not None and version == serving.version:
            self._health.mark_working("model")
            return
        if not self._bundles.may_try(version):
            return
        entries = [*serving.catalogue, *self.current.catalogue.items]
        with collector_paused():
            self._swap_bundle(version, serving.version)
        del serving
        free_gradually(entries)

    def _swap_bundle(self, version: str | None, previous: str | None) -> None:
        started = time.perf_counter()
        bundle = self._bundles.load(version)
        pause()
        catalogue = self._catalogue.for_bundle(bundle, self.current.catalogue)
        popularity = self._popularity.for_bundle(bundle, self.current.popularity)
        recommender = build(bundle, catalogue, popularity, self._settings)
        factors = self._new_items.factors(recommender)
        self._swap(with_new_items(recommender, factors) if factors else recommender)
        self._bundles.report_damage(bundle, self._health)
        self._metrics.set_live_model(bundle.version, bundle.manifest.created)
        self._metrics.swap_seconds.observe(time.perf_counter() - started)
        self._health.mark_working("model")
        _log.info(
            "bundle_live",
            version=bundle.version,
            previous=previous,
            routing=recommender.thresholds.explained,
            parts=sorted(bundle.parts),
            missing=dict(bundle.missing),
            catalogue_items=self.catalogue_items,
            seconds=round(time.perf_counter() - started, 3),
        )

    def _swap_catalogue(self, catalogue: Catalogue) -> None:
        self._swap(with_catalogue(self.current, catalogue))

    def _swap_popularity(self, popularity: Popularity, windows: Windows) -> None:
        self._swap(with_popularity(self.current, popularity, windows))

    def _swap(self, recommender: Recommender) -> None:
        # what is computed on first use is computed here: in a request, all others would wait for it
        popular = recommender.engines[PopularEngine.name]
        recommender.catalogue.prepare(self.current.catalogue)
        for use_case in (None, *self._settings.use_cases.by_name.values()):
            recommender.catalogue.mask(
                conditions(Request(use_case=use_case, filters=defaults(use_case)))
            )
            for window in (None, *recommender.windows):
                popular.score(UserState(user_id=""), Request(use_case=use_case, window=window))
        if recommender.catalogue is not self.current.catalogue:
            self.catalogue_items = len(recommender.catalogue)
            self._metrics.catalogue_items.set(self.catalogue_items)
        self._serve(recommender)

    def _serve(self, recommender: Recommender) -> None:
        self._variants = {
            variant_id: with_settings(recommender, settings, self._variants.get(variant_id))
            for variant_id, settings in self._variant_settings.items()
        }
        self.current = recommender
