"""Compares the exactly-once apply with a model in plain Python, for random orders of operations."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

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
from core.errors import Stale
from core.settings import Settings
from core.types import Interaction
from store.state import connection, keys
from store.state.apply import deletions, positions
from store.state.apply.applier import Applier
from store.state.apply.batches import Batch, Event, KnownDeletions, OffsetRange
from store.state.apply.entries import Entry, EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.planner import Planner
from store.state.entities import idle_users, users
from store.state.entities.idle_users import Counted
from store.state.entities.users import history_line

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


class Machine(RuleBasedStateMachine):
    """Two writers share the partitions; batches arrive late, users are deleted, leave Redis and are
    restored, writers restart.
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
        self.idle: Counter[str] = Counter()  # the first so many events left Redis
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
        planner, applier = self.writers[writer]
        # as ingest: most batches need not be planned again
        deletions_then = KnownDeletions(applier.deletions_version, {})
        return writer, planner.plan(
            OffsetRange("t", partition, first, first + len(events) + 1), stamped, deletions_then
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
        self.idle[user_id] = 0

    @rule(user_ids=st.sets(st.sampled_from(USERS)))
    def evict(self, user_ids: set[str]) -> None:
        counts = {
            user_id: Counted(len(self.counted[user_id]) - self.idle[user_id], self.idle[user_id])
            for user_id in user_ids
        }
        leaving = {user_id: counted for user_id, counted in counts.items() if counted.current}
        assert idle_users.evict(self.redis, leaving) == len(leaving)
        self.idle.update({user_id: counted.current for user_id, counted in leaving.items()})

    @rule(user_id=st.sampled_from(USERS))
    def restore(self, user_id: str) -> None:
        idle = self.idle[user_id]
        lines = [
            history_line(event.timestamp, event.event_type, event.value, event.item_id)
            for event in self.counted[user_id][:idle]
        ]
        is_back = 0 < idle < len(self.counted[user_id])
        assert idle_users.restore(self.redis, user_id, idle, lines[-CAP:], CAP) == is_back
        if is_back:
            self.idle[user_id] = 0

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
            idle = self.idle[user_id]
            assert int(self.redis.hget(keys.ONLY.user_idle(user_id), "events") or 0) == idle
            events = self.counted[user_id][idle:]
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


@pytest.mark.timeout(480)
def test_redis_equals_the_model_after_any_order_of_batches_deletions_and_restarts(
    settings: Settings, redis: Redis
) -> None:
    Machine.settings, Machine.redis = settings, redis
    run_state_machine_as_test(
        Machine,
        settings=hypothesis_settings(max_examples=60, stateful_step_count=30),
    )
