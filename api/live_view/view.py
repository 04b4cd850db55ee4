"""The live view: one immutable Recommender that every answer is made from, replaced as one
reference by a thread in the background.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import structlog

from api.health import Health
from api.live_view.snapshot import CatalogueSnapshot, Snapshot, merged
from api.metrics import Metrics
from core.deletions import IdHasher
from core.errors import ModelError, StoreError
from core.experiments import Variant
from core.process.background import in_background, rest, resting
from core.settings import Settings
from core.types import Item, LiveVector, Request, UserState
from engines.builder import build, with_catalogue, with_new_items, with_popularity, with_settings
from engines.catalogue import Catalogue
from engines.popular import PopularEngine
from engines.recommender import Recommender
from engines.selection.filters import conditions, defaults
from models.als.new_items import NewItemFactors
from models.bundle import LOADERS, Bundle
from models.id_map import IdMap
from models.popular import Popularity
from models.registry import Registry
from store.log.partitions import Partitions
from store.log.topics.ids import TopicIds
from store.state.apply import positions
from store.state.connection import Client, connect
from store.state.entities import catalogue, new_items, popularity
from store.state.entities.experiments import Exposures
from store.state.entities.trending import Trending
from store.state.keys import POPULAR_UNLABELLED

_log = structlog.get_logger(__name__)
REDIS_TIMEOUT_S = 1.0
"""Seconds that the refresher waits for one answer of Redis; nobody waits for the refresher but a
starting process.
"""
LET_GO = 200
"""Entries that are freed at once: some 0.2 ms."""
RETRY_MODEL_S = 10.0
"""Seconds until a version that could not be loaded is tried again: reading and hashing a bundle
costs as much as loading it.
"""


class LiveView:
    """Holds the live Recommender in `current`; `refresh` brings it up to date, `start` does so
    every REFRESH_S in a thread of its own.

    A request takes `current` once and answers from that object alone, so no answer mixes two
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
        self._settings, self._health, self._metrics, self._partitions = (
            settings,
            health,
            metrics,
            partitions,
        )
        self._topic_ids = topic_ids
        self._registry = Registry(settings.models_path)
        self._client: Client = connect(settings, REDIS_TIMEOUT_S)
        self._cursor, self._new_items_cursor = "", ""
        self._new_items: dict[str, LiveVector] = {}
        self._catalogue_from_redis = False
        self._snapshots = CatalogueSnapshot(settings.models_path, settings.items_topic)
        self._snapshot: Snapshot | None = None
        self._started, self._redis_read = False, False
        self._popularity_from_redis: tuple[Popularity, float] | None = None
        self._trending = Trending([*settings.use_cases.by_name, POPULAR_UNLABELLED])
        self._tried: tuple[str | None, float] = (None, float("-inf"))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-view", daemon=True)
        self._experiments = settings.experiments
        self._variants_settings = {
            each.id: settings.with_overrides(each.overrides)
            for each in self._experiments.by_id.values()
        }
        self.exposures = Exposures(
            self._experiments,
            settings.experiment_users,
            metrics.exposures_lost.inc,
            IdHasher(settings.deletion_salt),
        )
        self._variants: dict[str, Recommender] = {}
        self._serve(build(Bundle.empty(), settings=settings))
        self.catalogue_items = 0
        self.items_applied: list[int] = []
        """By partition of the topic of items: every message below this offset shows in `current`.
        """

    def start(self) -> None:
        """Refresh every REFRESH_S until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self.exposures.write(self._client)
        except StoreError as error:
            _log.warning("the latest exposures are lost", cause=str(error))
        self._client.close()

    def of_user(self, user_id: str, use_case: str | None) -> tuple[Recommender, Variant | None]:
        """What answers a user now, and which variant of an experiment that is.

        Take it once per request, as `current`.
        """
        variant = self._experiments.assign(user_id, use_case)
        return (self.current, None) if variant is None else (self._variants[variant.id], variant)

    def refresh(self) -> None:
        """One look at the bundle pointer, the catalogue's changes and popularity.

        What fails is noted in Health; the rest goes on.
        """
        if not self._started:
            self._started, self._snapshot = True, self._snapshots.load()
            if self._snapshot is not None:
                self._swap(
                    with_catalogue(
                        self.current, self._restored(self.current.bundle, self._snapshot)
                    )
                )
        try:
            self._refresh_bundle()
        except (ModelError, OSError) as error:
            self._health.failed("model", str(error))
        try:
            self._refresh_catalogue()
            self._refresh_new_items()
            self._refresh_popularity()
            self.exposures.write(self._client)
        except StoreError as error:
            self._health.failed("redis", str(error))
            if not self._redis_read:
                self._health.failed("catalogue", self._unknown())
        else:
            self._health.works("redis")
            self._metrics.refreshed.set_to_current_time()

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.refresh_s):
            try:
                with in_background():
                    self.refresh()
                self._health.works("refresh")
            except Exception as error:  # noqa: BLE001 - whatever it is, readers go on with what they hold, and the next round tries again
                _log.exception("refreshing failed")
                self._health.failed("refresh", f"{type(error).__name__}: {error}")

    def _refresh_bundle(self) -> None:
        wanted, serving = self._registry.current(), self.current.bundle
        if wanted is not None and wanted == serving.version:
            self._health.works("model")
            return
        version, tried_at = self._tried
        if wanted == version and time.monotonic() - tried_at < RETRY_MODEL_S:
            return
        self._tried = (wanted, time.monotonic())
        entries = [*serving.catalogue, *self.current.catalogue.items]
        with _collector_resting():
            self._swap_bundle(wanted, serving.version)
        del serving
        _let_go(entries)

    def _swap_bundle(self, wanted: str | None, was: str | None) -> None:
        started = time.perf_counter()
        bundle = self._registry.load(
            wanted, self._settings.als_model_path, self._settings.two_tower_model_path
        )
        items = None
        rest()
        if self._catalogue_from_redis:
            former = self.current.catalogue
            items = _catalogue(bundle, former.entries(), former.deleted)
        elif self._snapshot is not None:
            items = self._restored(bundle, self._snapshot)
        popular = self.current.popularity if self._popularity_from_redis else self._decayed(bundle)
        recommender = build(bundle, items, popular, self._settings)
        self._swap(
            with_new_items(recommender, self._new_item_factors(recommender))
            if self._new_items
            else recommender
        )
        self._note_damaged(bundle)
        self._metrics.live_model(bundle.version, bundle.manifest.created)
        self._metrics.swap_seconds.observe(time.perf_counter() - started)
        self._health.works("model")
        _log.info(
            "bundle is live",
            version=bundle.version,
            was=was,
            parts=sorted(bundle.parts),
            missing=dict(bundle.missing),
            catalogue_items=self.catalogue_items,
            seconds=round(time.perf_counter() - started, 3),
        )

    def _restored(self, bundle: Bundle, snapshot: Snapshot) -> Catalogue:
        """The catalogue while Redis has not answered yet: the bundle's, with what the copy on disk
        knows of hidden and deleted items.
        """
        return _catalogue(bundle, *merged(bundle.catalogue, _made_at(bundle), snapshot))

    def _unknown(self) -> str:
        """What is not known of the catalogue while Redis has not answered since the start."""
        known = max(
            self._snapshot.at if self._snapshot is not None else 0.0, _made_at(self.current.bundle)
        )
        when = (
            f"as of {datetime.fromtimestamp(known, UTC):%Y-%m-%d %H:%M:%S} UTC"
            if known
            else "unknown"
        )
        return (
            f"which items are available and which were deleted is {when}: Redis has not been "
            f"read since the start"
        )

    def _decayed(self, bundle: Bundle) -> Popularity | None:
        """The bundle's popularity as of now, on the scale on which Redis' is shown.

        None: the bundle has none.
        """
        if bundle.popular is None:
            return None
        half_life = bundle.manifest.settings.get(
            "popularity_half_life_days", self._settings.popularity_half_life_days
        )
        factor = 1.0 / popularity.growth(time.time(), float(half_life))
        return {
            name: [(item_id, score * factor) for item_id, score in entries]
            for name, entries in bundle.popular.scores.items()
        }

    def _note_damaged(self, bundle: Bundle) -> None:
        """Note in Health which parts of the bundle could not be loaded.

        A bundle that was made without a part is no fault.
        """
        overridden = {
            "als": self._settings.als_model_path,
            "two_tower": self._settings.two_tower_model_path,
        }
        for part in LOADERS:
            if part in bundle.missing and (
                part in bundle.manifest.parts or overridden.get(part) is not None
            ):
                self._health.failed(part, bundle.missing[part])
            elif self._health.failing(part) is not None:
                self._health.works(part)

    def _refresh_catalogue(self) -> None:
        """Follow the catalogue in Redis; while nothing was ever written there, the bundle's own
        catalogue stands in.
        """
        count = (
            self._partitions.count(self._settings.items_topic) or self._settings.topic_partitions
        )
        topic = self._settings.items_topic
        applied = positions.offsets(self._client, topic, count, self._topic_ids.latest(topic))
        news = catalogue.changes(self._client, self._cursor)
        if not self._redis_read:
            self._redis_read = True
            self._health.works("catalogue")
        if news.complete and not news.cursor and not news.items:
            pass
        elif news.complete:
            self._swap(with_catalogue(self.current, _catalogue(self.current.bundle, news.items)))
            self._catalogue_from_redis = True
            self._snapshots.replace(news.items, self.current.catalogue.deleted)
        elif news.items or news.deleted:
            self._swap(
                with_catalogue(
                    self.current, self.current.catalogue.updated(news.items, news.deleted)
                )
            )
            if not self._snapshots.append(news.items, news.deleted, self.catalogue_items):
                self._snapshots.replace(
                    self.current.catalogue.entries(), self.current.catalogue.deleted
                )
        self._cursor, self.items_applied = news.cursor, applied

    def _refresh_new_items(self) -> None:
        """Follow the items that came after the bundle."""
        news = new_items.changes(self._client, self._new_items_cursor)
        self._new_items_cursor = news.cursor
        kept = (
            {}
            if news.complete
            else {
                item_id: vector
                for item_id, vector in self._new_items.items()
                if item_id not in news.gone
            }
        )
        found = {**kept, **news.factors}
        if found == self._new_items:
            return
        self._new_items = found
        self._swap(with_new_items(self.current, self._new_item_factors(self.current)))

    def _new_item_factors(self, recommender: Recommender) -> NewItemFactors:
        """Those whose factors were made with the recommender's model.

        Factors that are not whole are left out.
        """
        model, made_with = recommender.bundle.als, recommender.made_with
        size = 4 * model.factors if model is not None else -1
        fit = {
            item_id: each.vector
            for item_id, each in self._new_items.items()
            if each.made_with == made_with and len(each.vector) == size
        }
        if not fit:
            return NewItemFactors.none()
        factors = np.frombuffer(b"".join(fit.values()), dtype="<f4").reshape(len(fit), -1)
        whole = np.isfinite(factors).all(axis=1)
        return NewItemFactors(
            IdMap([item_id for item_id, good in zip(fit, whole.tolist(), strict=True) if good]),
            factors[whole],
            made_with,
        )

    def _refresh_popularity(self) -> None:
        """Popularity from Redis as weight of events as of this hour, and by window; while there is
        none, the bundle's own stands in.
        """
        windows = self._trending.windows(self._client, time.time())
        stored = popularity.top(
            self._client, [*self._settings.use_cases.by_name, POPULAR_UNLABELLED]
        )
        found = (
            (stored, popularity.decay_factor(self._settings, time.time()))
            if any(stored.values())
            else None
        )
        if found is None or (
            found == self._popularity_from_redis and windows is self.current.windows
        ):
            return
        factor = found[1]
        scores = {
            name: [(item_id, score * factor) for item_id, score in entries]
            for name, entries in stored.items()
        }
        self._swap(with_popularity(self.current, scores, windows))
        self._popularity_from_redis = found

    def _swap(self, recommender: Recommender) -> None:
        # Much is made on first use: here, not in a request, behind which all others would wait.
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
            for variant_id, settings in self._variants_settings.items()
        }
        self.current = recommender


@contextmanager
def _collector_resting() -> Iterator[None]:
    """Pauses the garbage collector while a bundle is built, and freezes the objects afterwards, as
    at the start (api/server/process.py).

    The collector would walk thousands of entries again and again, and reads would wait 15 ms each
    time at 10,000 items. A bundle holds no cycle, so it is freed with its last reference all the
    same.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


def _let_go(entries: list[Item | None]) -> None:
    """Free the entries of a replaced bundle a few at a time.

    With the bundle they would go all at once, and reads would wait for that.
    """
    while entries:
        del entries[-LET_GO:]
        rest()


def _made_at(bundle: Bundle) -> float:
    """Seconds since 1970; 0 where the manifest does not say."""
    return (
        datetime.fromisoformat(bundle.manifest.created).timestamp()
        if bundle.manifest.created
        else 0.0
    )


def _catalogue(bundle: Bundle, items: Sequence[Item], deleted: Iterable[str] = ()) -> Catalogue:
    """`items` as the whole catalogue: what the bundle's own has and they have not was deleted,
    though its model knows it.
    """
    there = {item.item_id for item in resting(items)}
    gone = {item.item_id for item in resting(bundle.catalogue) if item.item_id not in there}
    return Catalogue.of(resting(items), deleted=gone.union(deleted))
