"""The exactly-once apply against a model in plain Python, on a real Redis, whatever order things
come in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from pydantic import SecretStr
from redis import Redis

from core.deletions import IdHasher, Place
from core.errors import ConfigurationError, LogGap, LogRewound, Stale, StoreCorrupt
from core.settings import Settings
from core.types import Interaction
from store.state import connection, keys
from store.state.apply import deletions, positions
from store.state.apply import pending as popularity_sums
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, Batch, Event, OffsetRange
from store.state.apply.entries import Entry, EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.pending import PIECE, Mark, PendingPopularity
from store.state.apply.planner import Planner
from store.state.entities import popularity, users

USERS = ("42", "42:history", "a%3Ab", "ü ser", "*")
ITEMS = ("startup-9", "with space", "ü", "1:2")
EVENTS = st.builds(
    Interaction,
    event_id=st.just("e"),
    user_id=st.sampled_from(USERS),
    item_id=st.sampled_from(ITEMS),
    event_type=st.sampled_from(("view", "like", "dismiss")),
    timestamp=st.floats(0, 2e9),
    value=st.none() | st.floats(0, 50),
    use_case=st.sampled_from((None, "developer_startup")),
)
CAP = 50
HASHER = IdHasher(SecretStr("salt"))


@pytest.fixture
def redis(redis: Redis) -> Redis:
    """An empty Redis that knows every deletion there is: none."""
    deletions.mark_ready(redis)
    return redis


class Machine(RuleBasedStateMachine):
    """Two writers share one partition; some batches arrive late, some users are deleted, one writer
    forgets what it knew.
    """

    settings: Settings
    redis: Redis
    planned = Bundle("planned")

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushall()
        deletions.mark_ready(self.redis)
        self.positions, self.users_position, self.clock = [0, 0], 0, 1.0
        self.log: list[list[Event]] = [[], []]
        self.deleted: dict[str, float] = {}
        self.counted: dict[str, list[Interaction]] = defaultdict(list)
        self.writers = [self._writer(), self._writer()]
        planner = Planner(self.settings.use_cases)
        self.entries = EntryApplier(
            connection.connect(self.settings), planner, CAP, lambda _published: None, self
        )

    def _writer(self) -> tuple[Planner, Applier]:
        planner = Planner(self.settings.use_cases)
        return planner, Applier(connection.connect(self.settings), planner, CAP, HASHER)

    def partitions(self) -> list[tuple[str, int]]:
        """As store.state.apply.entries.LaterEvents."""
        return [("t", 0), ("t", 1)]

    def find(self, times: Mapping[str, float], positions: Sequence[int]) -> dict[str, list[Event]]:
        """As store.state.apply.entries.LaterEvents."""
        assert list(positions) == self.positions
        later: dict[str, list[Event]] = {}
        for event in [event for partition in self.log for event in partition]:
            user_id = event.interaction.user_id
            if event.broker_time > times.get(user_id, 1e12):
                later.setdefault(user_id, []).append(event)
        return later

    @rule(
        target=planned,
        events=st.lists(EVENTS, max_size=30),
        writer=st.integers(0, 1),
        skip=st.integers(0, 2),
        partition=st.integers(0, 1),
    )
    def plan(
        self, events: list[Interaction], writer: int, skip: int, partition: int
    ) -> tuple[int, Batch]:
        self.clock += 1
        first = max(0, self.positions[partition] - skip)
        stamped = [Event(event, self.clock) for event in events]
        return writer, self.writers[writer][0].plan(
            OffsetRange("t", partition, first, first + len(events) + 1), stamped, UNKNOWN_DELETIONS
        )

    @rule(planned=consumes(planned))
    def apply(self, planned: tuple[int, Batch]) -> None:
        self._apply(planned[0], planned[1])

    @rule(one=consumes(planned), other=consumes(planned))
    def apply_together(self, one: tuple[int, Batch], other: tuple[int, Batch]) -> None:
        """Two partitions in one transaction; of one partition, the second has to follow the
        first.
        """
        if one[1].offsets.partition == other[1].offsets.partition:
            self._apply(one[0], one[1])
            self._apply(other[0], other[1])
        else:
            self._apply(one[0], one[1], other[1])

    def _apply(self, writer: int, *batches: Batch) -> None:
        stale = [
            batch
            for batch in batches
            if batch.offsets.first != self.positions[batch.offsets.partition]
        ]
        if stale:
            with pytest.raises(Stale) as raised:
                self.writers[writer][1].apply(*batches)
            assert raised.value.position == self.positions[stale[0].offsets.partition]
            return
        self.writers[writer][1].apply(*batches)
        for batch in batches:
            self.positions[batch.offsets.partition] = batch.offsets.next
            self.log[batch.offsets.partition] += batch.events
            for event in batch.events:
                if self._counts(event):
                    self.counted[event.interaction.user_id].append(event.interaction)

    @rule(user_id=st.sampled_from(USERS), late=st.integers(0, 4))
    def delete_user(self, user_id: str, late: int) -> None:
        """`late`: so many batches that came after the deletion may be applied already."""
        self.clock += 1
        time = self.clock - late
        place = Place(time, 0, self.users_position, "T")
        entry = Entry("user", HASHER("user", user_id), user_id, place, None)
        self.entries.apply(
            EntryBatch(
                OffsetRange("users", 0, self.users_position, self.users_position + 1), [entry]
            )
        )
        self.users_position += 1
        self.deleted[user_id] = max(time, self.deleted.get(user_id, 0.0))
        events = [
            event
            for partition in self.log
            for event in partition
            if event.interaction.user_id == user_id
        ]
        self.counted[user_id] = [event.interaction for event in events if self._counts(event)]

    @rule(writer=st.integers(0, 1))
    def restart_writer(self, writer: int) -> None:
        self.writers[writer][1].close()
        self.writers[writer] = self._writer()

    @invariant()
    def redis_is_the_model(self) -> None:
        assert [
            positions.read(self.redis, "t", number).offset for number in (0, 1)
        ] == self.positions
        for user_id in USERS:
            events = self.counted[user_id]
            state = users.read(self.redis, user_id, CAP)
            assert state.first_seen == (int(events[0].timestamp) if events else None)
            assert state.counts == dict(Counter(event.event_type for event in events))
            assert state.events == len(events)
            lines = [(int(event.timestamp), event.event_type, event.item_id) for event in events]
            assert [
                (line.timestamp, line.event_type, line.item_id) for line in state.history
            ] == lines[-CAP:]

    def _counts(self, event: Event) -> bool:
        return event.broker_time > self.deleted.get(event.interaction.user_id, 0.0)

    def teardown(self) -> None:
        for _, applier in self.writers:
            applier.close()
        self.entries.close()


@pytest.mark.timeout(240)
def test_any_order_of_batches_deletions_and_restarts(settings: Settings, redis: Redis) -> None:
    Machine.settings, Machine.redis = settings, redis
    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(max_examples=60, stateful_step_count=30, deadline=None),
    )


def _apply(settings: Settings, events: list[Interaction], first: int = 0) -> None:
    planner = Planner(settings.use_cases)
    applier = Applier(connection.connect(settings), planner, CAP, HASHER)
    pending = PendingPopularity(
        settings.use_cases, settings.popularity_half_life_days, Mark(first, first)
    )
    for offset, event in enumerate(events, first):
        pending.add(offset, event, 1.77e9)
    stamped, next_ = [Event(event, 1.0) for event in events], first + len(events)
    applier.apply(
        planner.plan(
            OffsetRange("t", 0, first, next_),
            stamped,
            UNKNOWN_DELETIONS,
            pending.piece(next_, whole=True),
        )
    )
    applier.close()


def test_an_operator_reads_plain_words(settings: Settings, redis: Redis) -> None:
    like = Interaction("e1", "42", "startup-9", "like", 1732340000.9, None, "developer_startup")
    rating = Interaction("e2", "42", "2571", "rating", 1732340001.0, 4.5)
    _apply(settings, [like, rating])
    assert redis.hgetall("user:42") == {
        b"events": b"2",
        b"ev:like": b"1",
        b"ev:rating": b"1",
        b"first_seen": b"1732340000",
    }
    assert redis.lrange("user:42:history", 0, -1) == [
        b"1732340000 like startup-9",
        b"1732340001 rating=4.5 2571",
    ]
    assert redis.zrange("popular:developer_startup", 0, -1) == [b"startup-9"]
    assert redis.hget("ingest:t:0", "position") == b"2"


def test_no_id_can_name_another_users_key() -> None:
    assert keys.user("42:history") != keys.history("42")
    assert keys.user("42%3Ahistory") != keys.user("42:history")


def test_a_history_is_cut_to_its_cap(settings: Settings, redis: Redis) -> None:
    planner = Planner(settings.use_cases)
    applier = Applier(connection.connect(settings), planner, CAP, HASHER)
    for first in range(0, 400, 20):
        events = [
            Event(Interaction(f"{at}", "42", f"i{at}", "view", float(at)), 1.0)
            for at in range(first, first + 20)
        ]
        applier.apply(
            planner.plan(OffsetRange("t", 0, first, first + 20), events, UNKNOWN_DELETIONS)
        )
    applier.close()
    assert redis.llen("user:42:history") < CAP + CAP // 8 + 16 + 20
    state = users.read(redis, "42", CAP)
    assert [line.item_id for line in state.history] == [f"i{at}" for at in range(350, 400)]
    assert state.events == 400


def test_a_key_of_another_type_is_named(settings: Settings, redis: Redis) -> None:
    redis.set("user:42", "somebody's own")
    with pytest.raises(StoreCorrupt, match="user:42 answered WRONGTYPE"):
        _apply(settings, [Interaction("e", "42", "i", "view", 1.0)])


def test_an_emptied_redis_counts_nothing_until_its_deletions_are_recovered(
    settings: Settings, redis: Redis
) -> None:
    """Also where the position matches: nobody can tell yet whose events are dead."""
    planner = Planner(settings.use_cases)
    applier = Applier(connection.connect(settings), planner, CAP, HASHER)
    event = Event(Interaction("e", "ada", "startup-1", "like", 1.0), 1.0)
    redis.flushall()
    with pytest.raises(Stale, match="Redis was emptied") as raised:
        applier.apply(planner.plan(OffsetRange("t", 0, 0, 1), [event], UNKNOWN_DELETIONS))
    assert raised.value.position == 0
    assert redis.keys() == []
    deletions.mark_ready(redis)
    applier.apply(planner.plan(OffsetRange("t", 0, 0, 1), [event], UNKNOWN_DELETIONS))
    applier.close()
    assert redis.exists("user:ada") == 1


def test_a_position_that_is_none_is_named(settings: Settings, redis: Redis) -> None:
    redis.set("ingest:t:0", "somebody's own")
    with pytest.raises(
        StoreCorrupt, match=r"HMGET ingest:t:0 while applying t/0 \[0, 1\): WRONGTYPE"
    ):
        _apply(settings, [Interaction("e", "42", "i", "view", 1.0)])
    assert redis.exists("user:42") == 0


def test_popularity_halves_in_a_half_life_and_weighs_by_use_case(
    settings: Settings, redis: Redis
) -> None:
    month = 30 * 86400.0
    now = popularity.LANDMARK
    old = Interaction("a", "1", "old", "like", now - month, None, "investor_startup")
    new = Interaction("b", "2", "new", "like", now, None, "investor_startup")
    _apply(settings, [old, new, Interaction("c", "3", "hidden", "dismiss", now)])
    scores = popularity.top(redis, ["investor_startup", "unlabelled"])
    factor = popularity.decay_factor(settings, now)
    assert [(item, score * factor) for item, score in scores["investor_startup"]] == [
        ("new", 3.0),
        ("old", 1.5),
    ]
    assert scores["unlabelled"] == []  # a weight of 0 makes nothing popular
    assert popularity.decay_factor(settings, now + month) == 0.5


def test_two_owners_of_a_partition_do_not_both_write_its_popularity(
    settings: Settings, redis: Redis
) -> None:
    """The mark moves without the position when nothing happens: comparing the position alone would
    not tell.
    """
    planner = Planner(settings.use_cases)
    applier = Applier(connection.connect(settings), planner, CAP, HASHER)
    event = Interaction("e", "42", "startup-9", "like", 1.76e9)
    none = UNKNOWN_DELETIONS
    applier.apply(planner.plan(OffsetRange("t", 0, 0, 1), [Event(event, 1.0)], none))
    owners = [PendingPopularity(settings.use_cases, 30.0, Mark()) for _ in range(2)]
    for owner in owners:
        owner.add(0, event, 1.76e9)
    first, second = (
        planner.plan(OffsetRange("t", 0, 1, 1), [], none, owner.piece(1, whole=True))
        for owner in owners
    )
    applier.apply(first)
    with pytest.raises(Stale, match="another process has written popularity"):
        applier.apply(second)
    applier.close()
    assert redis.zscore("popular:unlabelled", "startup-9") == 3 * popularity.growth(1.76e9, 30.0)


def test_a_few_sums_are_written_once_when_no_more_events_arrive(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the piece nothing is due: else ingest would send empty transactions all the time."""
    pending = PendingPopularity(settings.use_cases, 30.0, Mark())
    pending.add(0, Interaction("e", "42", "startup-9", "like", 1.76e9), 1.76e9)
    assert not pending.due(1)
    monkeypatch.setattr(popularity_sums, "FEW_S", 0.0)  # as if a second had passed
    assert pending.due(1)
    assert len(pending.piece(1).sums) == 1
    assert not pending.due(1)


def test_popularity_written_piece_by_piece_goes_on_where_another_process_stopped(
    settings: Settings,
) -> None:
    """A process may die between any two pieces; the next one reads the log again from the mark and
    writes the rest of the same cut.
    """
    log = [Interaction(f"{at}", "u", f"i{at * 7 % 1000}", "view", 1.76e9) for at in range(2500)]
    written: Counter[tuple[str, str]] = Counter()
    mark, position, processes = Mark(), 0, 0
    while mark.first < len(log):
        pending, processes = PendingPopularity(settings.use_cases, 30.0, mark), processes + 1
        for offset in range(mark.first, position):
            pending.add(offset, log[offset], 1.76e9)
        for offset in range(position, min(position + 900, len(log))):
            pending.add(offset, log[offset], 1.76e9)
            position = offset + 1
        piece = pending.piece(position, whole=True)  # one piece a process, then it dies
        assert len(piece.sums) <= PIECE
        for key, score in piece.sums:
            written[key] += score
        mark = piece.mark or mark
    whole = PendingPopularity(settings.use_cases, 30.0, Mark())
    for offset, event in enumerate(log):
        whole.add(offset, event, 1.76e9)
    expected: Counter[tuple[str, str]] = Counter()
    while whole.mark.first < len(log):
        expected.update(dict(whole.piece(len(log), whole=True).sums))
    assert written == expected
    assert processes > 5


@pytest.mark.parametrize(
    ("position", "log", "topic_id", "error"),
    [
        ((10, None), (0, 10), "A", None),
        ((10, "A"), (10, 12), "A", None),
        ((10, "A"), (0, 9), "A", LogRewound),
        ((10, "A"), (0, 12), "B", LogRewound),
        ((10, "A"), (11, 12), "A", LogGap),
        ((0, None), (1, 12), None, None),  # nothing is applied yet: it begins where the log begins
    ],
)
def test_a_position_that_does_not_fit_the_log_stops(
    position: tuple[int, str | None], log: tuple[int, int], topic_id: str | None, error: Any
) -> None:
    def check() -> None:
        positions.check("interactions", 0, positions.Position(*position), *log, topic_id)

    if error is None:
        check()
    else:
        with pytest.raises(error, match="interactions/0"):
            check()


def test_settings_that_shape_stored_numbers_may_not_change_silently(
    settings: Settings, redis: Redis
) -> None:
    positions.check_settings(redis, settings)
    positions.check_settings(redis, settings)
    with pytest.raises(ConfigurationError, match="popularity_half_life_days was 30 and is 14"):
        positions.check_settings(
            redis, settings.model_copy(update={"popularity_half_life_days": 14.0})
        )
