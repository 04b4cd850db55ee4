"""Publishes deletions to the topic of deletions."""

from __future__ import annotations

from collections.abc import Sequence

from core.deletions import DeletionRecord, IdHasher, Kind, Place, encode_record
from core.settings import Settings
from store.log.producer import Producer

Deletion = tuple[Kind, str, Place]
"""Kind, hashed id, and where the record of the deletion lies."""


class Publisher:
    """Publishes deletions of one shard and waits until they are acknowledged.

    Connects on first use. Not thread-safe.
    """

    def __init__(self, settings: Settings, hasher: IdHasher, shard: int) -> None:
        self._settings, self._hasher, self._shard = settings, hasher, shard
        self._producer: Producer | None = None

    def publish(self, deletions: Sequence[Deletion], outdated: Sequence[bytes] = ()) -> None:
        """Publish deletions, then drop the records with the keys `outdated`.

        Raises LogUnavailable.
        """
        if self._producer is None:
            self._producer = Producer(
                self._settings, delivery_timeout_s=self._settings.kafka_timeout_s
            )
        topic = self._settings.deletions_topic
        try:
            for kind, digest, place in deletions:
                key, value = encode_record(
                    DeletionRecord(
                        kind=kind,
                        digest=digest,
                        place=place,
                        salt=self._hasher.fingerprint,
                        shard=self._shard,
                        shards=self._settings.redis_shards,
                    )
                )
                self._producer.raw(topic, key, value)
            self._producer.flush()
            for key in outdated:
                self._producer.raw(topic, key, None)
            self._producer.flush()
        except BaseException:
            self._producer = None
            raise
