"""Reads trending windows from a real Redis after events are applied."""

from __future__ import annotations

import pytest
from redis import Redis

from api.live_view.trending import REFRESH_S, TOP, Entries, Trending
from core.deletions import IdHasher
from core.settings import Settings
from core.types import Interaction
from store.state import connection
from store.state.apply import deletions
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, OffsetRange
from store.state.apply.pending import FLUSH_EVENTS, PIECE, Mark, PendingPopularity, read_mark
from store.state.apply.planner import Planner
from store.state.entities import trending

NAMES = ("developer_startup", "unlabelled")
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class World:
    """A partition whose events are applied one at a time.

    Times are by the clock of Redis, which expires the buckets.
    """

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self.redis, self.position = redis, 0
        seconds, _ = redis.time()
        self.now = float(seconds)
        self._settings, self._planner = settings, Planner(settings.use_cases)
        deletions.mark_ready(connection.connect(settings))
        self._applier = Applier(
            connection.connect(settings), self._planner, 50, IdHasher(settings.deletion_salt)
        )

    def happened(
        self,
        item_id: str,
        ago: float,
        *,
        late: float = 0.0,
        use_case: str | None = None,
        kind: str = "view",
    ) -> None:
        """Apply an event of `ago` seconds ago that reached the broker `late` seconds later."""
        pending = PendingPopularity(
            self._settings.use_cases, 30.0, Mark(self.position, self.position)
        )
        event = Interaction("e", "42", item_id, kind, self.now - ago, None, use_case)
        pending.add(self.position, event, self.now - ago + late)
        piece = pending.piece(self.position + 1, whole=True)
        offsets = OffsetRange("t", 0, self.position, self.position + 1)
        self._applier.apply(self._planner.plan(offsets, [], UNKNOWN_DELETIONS, piece))
        self.position += 1

    def windows(self) -> dict[str, dict[str, dict[str, float]]]:
        windows = self.refresh(Trending(NAMES), self.now)
        return {
            window: {name: dict(entries) for name, entries in by_name.items() if entries}
            for window, by_name in windows.items()
        }

    def refresh(self, reader: Trending, now: float) -> dict[str, dict[str, Entries]]:
        if due := reader.due(now):
            reader.update([trending.read(self.redis, due)], now)
        return reader.windows

    def close(self) -> None:
        self._applier.close()


@pytest.fixture
def world(settings: Settings, redis: Redis) -> object:
    world = World(settings, redis)
    yield world
    world.close()


def test_an_event_counts_in_the_windows_it_happened_in_by_use_case(world: World) -> None:
    world.happened("now", 0)
    world.happened("now", 1, kind="like")
    world.happened("now", 50 * MINUTE, use_case="developer_startup")
    world.happened("earlier", 5 * HOUR)
    world.happened("days ago", 3 * DAY)
    world.happened("long ago", 9 * DAY)
    assert world.windows() == {
        "hour": {"unlabelled": {"now": 4.0}, "developer_startup": {"now": 1.0}},
        "day": {"unlabelled": {"now": 4.0, "earlier": 1.0}, "developer_startup": {"now": 1.0}},
        "week": {
            "unlabelled": {"now": 4.0, "earlier": 1.0, "days ago": 1.0},
            "developer_startup": {"now": 1.0},
        },
    }


def test_a_window_ends_one_bucket_after_its_length(world: World) -> None:
    for window, (level, length) in trending.WINDOWS.items():
        world.happened(f"within {window}", length - 1)
        world.happened(f"past {window}", length + level.bucket + 1)
    windows = world.windows()
    for window in trending.WINDOWS:
        assert f"within {window}" in windows[window]["unlabelled"]
        assert f"past {window}" not in windows[window]["unlabelled"]


def test_a_late_event_counts_in_the_windows_that_are_longer_than_its_delay(
    world: World,
) -> None:
    world.happened("a little late", 50 * MINUTE, late=40 * MINUTE)
    world.happened("late for the hour", 50 * MINUTE, late=61 * MINUTE)
    world.happened("late for all", 5 * HOUR, late=8 * DAY)
    assert world.windows() == {
        "hour": {"unlabelled": {"a little late": 1.0}},
        "day": {"unlabelled": {"a little late": 1.0, "late for the hour": 1.0}},
        "week": {"unlabelled": {"a little late": 1.0, "late for the hour": 1.0}},
    }


def test_an_event_with_a_future_timestamp_happens_at_the_broker_time(world: World) -> None:
    world.happened("tomorrow", -20 * HOUR, late=-20 * HOUR)
    assert world.windows()["hour"] == {"unlabelled": {"tomorrow": 1.0}}


def test_buckets_expire_after_their_last_window_and_an_old_log_writes_none(
    world: World,
) -> None:
    world.happened("now", 0)
    world.happened("this week", 6 * DAY)
    for raw in world.redis.keys("trending:*"):
        key = raw.decode() if isinstance(raw, bytes) else raw
        length, begin = (int(part) for part in key.rsplit(":", 2)[1:])
        window = {300: HOUR, 3600: 7 * DAY}[length]
        assert world.redis.expiretime(key) == begin + length + window + HOUR
    before = world.redis.keys("trending:*")
    world.happened("a year ago", 365 * DAY)
    assert sorted(world.redis.keys("trending:*")) == sorted(before)


def test_a_reader_refreshes_open_buckets_once_in_refresh_s(world: World) -> None:
    reader = Trending(NAMES)
    world.happened("a", 0)
    first = world.refresh(reader, world.now)
    world.happened("b", 0, kind="like")
    assert world.refresh(reader, world.now + REFRESH_S / 2) is first
    after = world.refresh(reader, world.now + REFRESH_S)
    assert after["hour"]["unlabelled"] == [("b", 3.0), ("a", 1.0)]
    assert world.refresh(reader, world.now + 2 * REFRESH_S) is after


def test_a_late_event_of_a_closed_bucket_is_visible_within_minutes(world: World) -> None:
    reader = Trending(NAMES)
    world.refresh(reader, world.now)
    world.happened("late", 3 * DAY)
    at, refreshes = world.now, 0
    while not world.refresh(reader, at)["week"]["unlabelled"]:
        at, refreshes = at + REFRESH_S, refreshes + 1
        assert refreshes < 1000
    assert refreshes * REFRESH_S <= 5 * MINUTE


def test_a_new_reader_has_the_hour_first_and_the_other_windows_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trending, "REFRESH_ITEMS", 1)
    for number in range(5):
        world.happened("a", number * 7 * HOUR)
    reader, at = Trending(NAMES), world.now
    known = [set(world.refresh(reader, at))]
    while known[-1] != {"hour", "day", "week"}:
        at += REFRESH_S
        known.append(set(world.refresh(reader, at)))
        assert known[-2] <= known[-1]
        assert len(known) < 1000
    assert {"hour"} in known


def test_a_large_bucket_is_read_in_pages_up_to_its_heaviest_items(world: World) -> None:
    key = trending.buckets("unlabelled", world.now, 2, world.now)[1]
    world.redis.zadd(
        key, {f"i{number}": float(number + 1) for number in range(trending.MOST_ITEMS + 500)}
    )
    hour = world.refresh(Trending(NAMES), world.now)["hour"]["unlabelled"]
    assert len(hour) == TOP
    assert hour[:2] == [
        (f"i{trending.MOST_ITEMS + 499}", trending.MOST_ITEMS + 500.0),
        (f"i{trending.MOST_ITEMS + 498}", trending.MOST_ITEMS + 499.0),
    ]


def test_an_operator_reads_the_windows_of_one_item(world: World) -> None:
    world.happened("a", 0, use_case="developer_startup")
    world.happened("a", 3 * DAY)
    assert trending.of_item([world.redis], NAMES, "a", world.now) == {
        "hour": {"developer_startup": 1.0},
        "day": {"developer_startup": 1.0},
        "week": {"developer_startup": 1.0, "unlabelled": 1.0},
    }


def test_a_cut_is_written_before_the_next_one_is_due_even_if_all_items_are_distinct(
    settings: Settings,
) -> None:
    """Otherwise the pending sums would grow without bound."""
    seconds = 1.9e9
    pending = PendingPopularity(settings.use_cases, 30.0, Mark())
    for offset in range(FLUSH_EVENTS):
        pending.add(offset, Interaction("e", "42", f"i{offset}", "view", seconds), seconds)
    position, batches, longest = FLUSH_EVENTS, 0, 0
    while pending.due(position):
        piece = pending.piece(position)
        batches, longest = batches + 1, max(longest, len(piece.sums))
    assert batches * settings.transaction_events <= FLUSH_EVENTS
    assert PIECE < longest <= 10 * PIECE


def test_an_unfinished_cut_of_an_older_release_is_continued(
    settings: Settings,
) -> None:
    seconds = 1.9e9
    pending = PendingPopularity(
        settings.use_cases, 30.0, read_mark([b"0", b"2", b"unlabelled a", None])
    )
    for offset, item_id in enumerate(("a", "b")):
        pending.add(offset, Interaction("e", "42", item_id, "view", seconds), seconds)
    written = [key for key, _ in pending.piece(2).sums]
    assert [key for key in written if key[0].startswith("popular")] == [("popular:unlabelled", "b")]
    assert len(written) == 5, (
        "and both items in two buckets each, which the older release did not have"
    )
