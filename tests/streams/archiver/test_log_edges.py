"""`streams archive` when the archive and the log do not fit together.

There is a gap, the log ends before the archive, or the topic was created anew.
"""

from __future__ import annotations

import time

import pytest

from core.errors import LogGap, LogRewound
from core.settings import Settings
from store.archive.archive import Archive
from store.archive.schema import SCHEMA
from store.log import client as log
from store.log.topics.ids import TopicId
from streams.archiver.archiver import Archiver
from tests.conftest import Spawn
from tests.streams.archiver.world import archived, assert_every_offset_once, ends, publish
from tests.support import eventually
from tests.topics import recreate, trim

ROWS = 50


def test_an_archive_that_reaches_beyond_the_logs_end_is_not_continued(
    broker: object, settings: Settings
) -> None:
    log.ensure_topics(settings)
    publish(settings, 10)
    Archiver(settings).run(until_idle=True)
    archive = Archive(settings.archive_url)
    partition, position = next(iter(archive.positions(settings.interactions_topic).items()))
    archive.append(
        settings.interactions_topic, partition, position, position + 5, SCHEMA.empty_table()
    )
    with pytest.raises(
        LogRewound, match=r"the archive holds offsets up to \d+, but the log ends at"
    ):
        Archiver(settings).run(until_idle=True)


@pytest.mark.apache
def test_a_gap_between_archive_and_log_is_an_error_unless_it_is_accepted(
    broker: object, settings: Settings
) -> None:
    log.ensure_topics(settings)
    publish(settings, 200)
    Archiver(settings).run(until_idle=True)
    former = ends(settings)
    publish(settings, 800, start=200)
    trim(
        settings,
        settings.interactions_topic,
        {partition: end + 50 for partition, end in former.items()},
    )
    with pytest.raises(
        LogGap,
        match=r"archive ends at offset \d+, but the log begins at \d+: 50 offsets between"
        r".*--accept-gap",
    ):
        Archiver(settings).run(until_idle=True)
    Archiver(settings, accept_gap=True).run(until_idle=True)
    assert archived(settings) == {
        partition: [*range(former[partition]), *range(former[partition] + 50, end)]
        for partition, end in ends(settings).items()
    }
    assert Archive(settings.archive_url).positions(settings.interactions_topic) == ends(settings)


@pytest.mark.apache
def test_the_first_archive_of_a_trimmed_log_begins_where_the_log_begins(
    broker: object, settings: Settings
) -> None:
    log.ensure_topics(settings)
    publish(settings, 400)
    trim(settings, settings.interactions_topic, dict.fromkeys(ends(settings), 20))
    Archiver(settings).run(until_idle=True)
    trim(settings, settings.interactions_topic, dict.fromkeys(ends(settings), 40))
    Archiver(settings).run(until_idle=True)
    assert archived(settings) == {
        partition: list(range(20, end)) for partition, end in ends(settings).items()
    }


@pytest.mark.apache
@pytest.mark.parametrize("refilled", [5, 100, 300])
def test_a_topic_created_anew_stops_a_running_archive(
    broker: object, settings: Settings, spawn: Spawn, refilled: int
) -> None:
    """`refilled` events end below, at, and beyond the offsets that the archive has read."""
    log.ensure_topics(settings)
    publish(settings, 100)
    child = spawn("streams", "archive", ARCHIVE_FILE_S="1")
    eventually(
        lambda: (
            sum(Archive(settings.archive_url).positions(settings.interactions_topic).values())
            == 100
        ),
        "all is archived",
    )
    before = archived(settings)
    recreate(settings, settings.interactions_topic)
    publish(settings, refilled, start=1000)
    assert child.wait(60) == 1, child.describe("goes on")
    assert "was created anew" in child.log.read_text()
    assert archived(settings) == before, "nothing of the new topic is mixed with the old one"
    with pytest.raises(LogRewound, match="Set another ARCHIVE_URL"):
        Archiver(settings).run(until_idle=True)
    elsewhere = settings.model_copy(update={"archive_url": settings.archive_url + "-new"})
    assert Archiver(elsewhere).run(until_idle=True) == refilled
    assert_every_offset_once(elsewhere)


class _Ids:
    """Topic ids as a broker answers them: "old" at first; `later` once everything is read, each at
    a request that was sent after that; then "new".
    """

    def __init__(self, topic: str, archiver: Archiver, later: list[TopicId]) -> None:
        self._topic, self._archiver, self._later = topic, archiver, later
        self._reads = 0
        self.confirmed_at = 0.0

    def read(self) -> dict[str, TopicId]:
        self._reads += 1
        return self._answer("old" if self._reads == 1 else "new")

    def poll(self) -> dict[str, TopicId]:
        rows = sum(buffer.rows for buffer in self._archiver._buffers.values())
        return self._answer(self._later.pop(0)) if rows == ROWS and self._later else {}

    def _answer(self, topic_id: TopicId) -> dict[str, TopicId]:
        self.confirmed_at = time.monotonic()
        return {self._topic: topic_id}


@pytest.mark.parametrize(
    ("later", "archived_rows"), [([], 0), (["new"], 0), (["old", "new"], ROWS)], ids=str
)
def test_rows_are_archived_only_once_the_topic_they_were_read_from_is_certain(
    broker: object, settings: Settings, later: list[TopicId], archived_rows: int
) -> None:
    """Also while the consumer closes, whichever request finds that the topic was created anew."""
    log.ensure_topics(settings)
    publish(settings, ROWS)
    archiver = Archiver(settings)
    archiver._topic_ids = _Ids(settings.interactions_topic, archiver, later)  # type: ignore[assignment]
    with pytest.raises(LogRewound, match="its id was old and is new"):
        archiver.run(until_idle=True)
    assert sum(map(len, archived(settings).values())) == archived_rows
