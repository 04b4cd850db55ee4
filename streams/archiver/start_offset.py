"""Finds the offset from which a partition is archived.

Refuses a log that does not continue the archive.
"""

from __future__ import annotations

import structlog
from confluent_kafka import Consumer

from core.errors import LogGap, LogRewound
from core.redaction import masked_url
from core.settings import Settings
from store.archive.archive import Archive
from store.archive.schema import SCHEMA
from store.log import ends as log_ends
from store.log.topics.ids import TopicId

_log = structlog.get_logger(__name__)


class StartOffsets:
    """Compares the archive of the interactions topic with the log."""

    def __init__(self, settings: Settings, archive: Archive, accept_gap: bool) -> None:
        """`accept_gap`: record a gap as an empty range instead of raising LogGap."""
        self._settings, self._archive, self._accept_gap = settings, archive, accept_gap
        self._topic = settings.interactions_topic

    def find(self, consumer: Consumer, partition: int, topic_id: TopicId) -> int:
        """The offset at which to go on, after cleaning up what a crashed writer left.

        Raises LogGap, LogRewound, LogUnavailable, ArchiveError.
        """
        self._archive.recover(self._topic, partition)
        position = self._archive.position(self._topic, partition)
        first, end = log_ends.ends(self._settings, consumer, self._topic, partition, position)
        self._refuse_rewound(partition, position, end, topic_id)
        if position >= first:
            return position
        self._refuse_gap(partition, position, first)
        self._archive.append(
            self._topic, partition, position, first, SCHEMA.empty_table(), topic_id
        )
        return first

    def _refuse_rewound(self, partition: int, position: int, end: int, topic_id: TopicId) -> None:
        """Raise LogRewound when the archive was written from another log than this one."""
        where = f"{self._topic}/{partition}"
        archived_id = self._archive.topic_id(self._topic, partition)
        if archived_id is not None and topic_id is not None and archived_id != topic_id:
            raise LogRewound(
                f"{where} was created anew: the archive was written from topic id {archived_id}, "
                f"the broker has {topic_id}. {_new_archive_advice(self._settings)}"
            )
        if position > end:
            raise LogRewound(
                f"{where}: the archive holds offsets up to {position - 1}, but the log ends "
                f"at {end}: it was created anew or lost events. Restore the broker's log. "
                f"If that is impossible: {_new_archive_advice(self._settings)}"
            )

    def _refuse_gap(self, partition: int, position: int, first: int) -> None:
        """Raise LogGap unless the gap [position, first) is accepted or precedes every row."""
        if not self._archive.holds_rows(self._topic, partition):
            _log.warning(
                "log_begins_late",
                partition=partition,
                begins=first,
                reason="retention deleted the records before",
            )
        elif self._accept_gap:
            _log.warning("gap_accepted", partition=partition, first=position, next=first)
        else:
            raise LogGap(
                f"{self._topic}/{partition}: the archive ends at offset {position}, but the log "
                f"begins at {first}: {first - position} offsets between are gone. Restore newer "
                f"archive files from a backup, or run `python -m streams archive --accept-gap` to "
                f"record the gap and go on"
            )


def topic_changed(settings: Settings, former: TopicId, topic_id: TopicId) -> LogRewound:
    """The error of a topic whose id was `former` when the archive process began to read it."""
    return LogRewound(
        f"{settings.interactions_topic} was created anew while it was archived: its id was "
        f"{former} and is {topic_id}; nothing of the new topic was archived. "
        f"{_new_archive_advice(settings)}"
    )


def _new_archive_advice(settings: Settings) -> str:
    """What an operator does when the topic was created anew."""
    return (
        f"Set another ARCHIVE_URL (or move the folder {settings.interactions_topic} in "
        f"{masked_url(settings.archive_url)} aside) and start archive again: it begins where the "
        f"log begins"
    )
