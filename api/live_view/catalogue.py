"""Follows the catalogue in Redis; keeps a copy on disk for a start while Redis is away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from api.live_view.snapshot import CatalogueSnapshot, Snapshot, merged
from core.process.background import with_pauses
from core.settings import Settings
from core.types import Item
from engines.catalogue import Catalogue
from engines.recommender import Recommender
from models.bundle import Bundle
from store.log.topics.ids import TopicIds
from store.log.topics.partitions import Partitions
from store.state.apply import positions
from store.state.connection import Client
from store.state.entities import catalogue


class CatalogueFollower:
    """The catalogue to serve: Redis' own once it was read, before that the bundle's, corrected by
    the copy on disk.

    While nothing was ever written to the catalogue in Redis, the bundle's own is served.
    """

    def __init__(self, settings: Settings, partitions: Partitions, topic_ids: TopicIds) -> None:
        self._settings, self._partitions, self._topic_ids = settings, partitions, topic_ids
        self._files = CatalogueSnapshot(settings.models_path, settings.items_topic)
        self._snapshot: Snapshot | None = None
        self._cursor = ""
        self._from_redis = False
        self.redis_was_read = False
        """Whether Redis has answered since the start."""
        self.items_applied: list[int] = []
        """By partition of the topic of items: every message below this offset is served."""

    def load_snapshot(self, bundle: Bundle) -> Catalogue | None:
        """Read the copy on disk: the catalogue to serve with `bundle`; None without a copy."""
        self._snapshot = self._files.load()
        return self._restored(bundle, self._snapshot) if self._snapshot is not None else None

    def for_bundle(self, bundle: Bundle, previous: Catalogue) -> Catalogue | None:
        """The catalogue to serve with a new `bundle`; None: the bundle's own.

        `previous`: the one that is served with the bundle before.
        """
        if self._from_redis:
            return _catalogue(bundle, previous.entries(), previous.deleted)
        return self._restored(bundle, self._snapshot) if self._snapshot is not None else None

    def refresh(
        self, client: Client, current: Recommender, serve: Callable[[Catalogue], None]
    ) -> None:
        """Read what has changed in Redis, and `serve` the new catalogue if something has.

        Raises StoreError.
        """
        topic = self._settings.items_topic
        partitions = self._partitions.count(topic) or self._settings.topic_partitions
        # before the changes: they hold at least what was applied below these offsets
        applied = positions.offsets_in(
            client, topic, range(partitions), self._topic_ids.latest(topic)
        )
        changes = catalogue.changes(client, self._cursor)
        self.redis_was_read = True
        if changes.complete and (changes.cursor or changes.items):
            complete = _catalogue(current.bundle, changes.items)
            serve(complete)
            self._from_redis, self._snapshot = True, None
            self._files.replace(changes.items, complete.deleted)
        elif not changes.complete and (changes.items or changes.deleted):
            updated = current.catalogue.updated(changes.items, changes.deleted)
            serve(updated)
            if not self._files.append(changes.items, changes.deleted, len(updated)):
                self._files.replace(updated.entries(), updated.deleted)
        self._cursor, self.items_applied = changes.cursor, applied

    def uncertainty(self, bundle: Bundle) -> str:
        """What is not known of the catalogue while Redis has not answered since the start."""
        at = max(self._snapshot.at if self._snapshot is not None else 0.0, _created_at(bundle))
        as_of = (
            f"as of {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC" if at else "unknown"
        )
        return (
            f"which items are available and which were deleted is {as_of}: Redis has not been "
            f"read since the start"
        )

    def _restored(self, bundle: Bundle, snapshot: Snapshot) -> Catalogue:
        """The bundle's catalogue, with the items that the copy on disk hides or deletes."""
        return _catalogue(bundle, *merged(bundle.catalogue, _created_at(bundle), snapshot))


def _created_at(bundle: Bundle) -> float:
    """Seconds since 1970; 0 where the manifest does not say."""
    created = bundle.manifest.created
    return datetime.fromisoformat(created).timestamp() if created else 0.0


def _catalogue(bundle: Bundle, items: Sequence[Item], deleted: Iterable[str] = ()) -> Catalogue:
    """`items` as the whole catalogue; an item that the bundle has is the bundle's own object.

    An item of the bundle that is not among them was deleted, although the bundle's model knows it.
    """
    trained = {item.item_id: item for item in with_pauses(bundle.catalogue)}
    item_ids = {item.item_id for item in with_pauses(items)}
    gone = trained.keys() - item_ids
    return Catalogue.of(
        (
            known if (known := trained.get(item.item_id, item)) == item else item
            for item in with_pauses(items)
        ),
        deleted=gone.union(deleted),
    )
