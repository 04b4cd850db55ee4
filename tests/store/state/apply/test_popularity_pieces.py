"""Writes popularity in pieces: each sum exactly once, whoever owns the partition."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis

from core.deletions import IdHasher
from core.errors import Stale
from core.settings import Settings
from core.types import Interaction
from store.state import connection
from store.state.apply import deletions
from store.state.apply import pending as popularity_sums
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, Event, OffsetRange
from store.state.apply.pending import PIECE, Mark, PendingPopularity
from store.state.apply.planner import Planner
from store.state.entities import popularity

CAP = 50
HASHER = IdHasher(SecretStr("salt"))


@pytest.fixture
def redis(redis: Redis) -> Redis:
    """An empty Redis with complete deletions: there are none."""
    deletions.mark_ready(redis)
    return redis


def test_two_owners_of_a_partition_do_not_both_write_its_popularity(
    settings: Settings, redis: Redis
) -> None:
    """Without events the mark moves and the position does not, so the mark is compared, too."""
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


def test_a_process_continues_the_unfinished_cut_of_another_process(
    settings: Settings,
) -> None:
    """A process may die after any piece; the next one reads the log again from the mark and writes
    the rest of the same cut.
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


def test_a_cut_that_began_without_a_default_use_case_is_continued_without_it(
    settings: Settings, tmp_path: Path
) -> None:
    """Else what was written as unlabelled would be written in the default use case again."""
    path = tmp_path / "use_cases.toml"
    section = "[use_cases.developer_startup]\n"
    text = Path("core/use_cases.toml").read_text()
    path.write_text(text.replace(section, f"{section}default = true\n"))
    marked = settings.model_copy(update={"use_cases_path": path})
    log = [Interaction(f"{at}", "u", f"i{at:03}", "view", 1.76e9) for at in range(PIECE + 100)]
    before = PendingPopularity(settings.use_cases, 30.0, Mark())
    for offset, event in enumerate(log):
        before.add(offset, event, 1.9e9)
    first = before.piece(len(log), whole=True)
    assert first.mark is not None
    after = PendingPopularity(marked.use_cases, 30.0, first.mark)
    for offset, event in enumerate([*log, *log]):
        after.add(offset, event, 1.9e9)
    second = after.piece(2 * len(log), whole=True)
    third = after.piece(2 * len(log), whole=True)
    assert {key for key, _ in first.sums + second.sums} == {
        ("popular:unlabelled", event.item_id) for event in log
    }
    assert {name for (name, _), _ in third.sums} == {"popular:developer_startup"}


def test_events_of_one_time_count_together_as_each_does_alone(settings: Settings) -> None:
    """Most events have the time window of the event before them; not so late events, fast clocks,
    events of other windows, with a value or without weight.
    """
    seed = 7
    pick, now = random.Random(seed), float(int(time.time() // 300) * 300)
    ages = [0.0, 299.5, 300.0, 3599.5, 3600.0, 3650.0, 8 * 86_400.0, -2.0, -15.0, -301.0]
    cases, types = [None, *settings.use_cases.by_name], [*settings.use_cases.event_types]
    records: list[tuple[int, Interaction, float]] = []
    for offset in range(2992):
        broker_time = now + offset / 4 - pick.choice([0.0, 0.0, 20.0])  # it may go back
        age = pick.choice(ages) if pick.random() < 0.3 else 0.25
        value = pick.choice([0.0, 0.5, 4.0]) if pick.random() < 0.1 else None
        item, kind, case = f"i{pick.randrange(9)}", pick.choice(types), pick.choice(cases)
        event = Interaction(f"{offset}", "u", item, kind, broker_time - age, value, case)
        records.append((offset, event, broker_time))
    for happened, broker_time in ((5.0, 5.0), (5.0, -5.0), (6.0, 3606.0), (7.0, 8.0)):
        for kind in ("view", "dismiss"):
            event = Interaction("", "u", kind, kind, now + 1500.0 + happened)
            records.append((len(records), event, now + 1500.0 + broker_time))

    alone: Counter[tuple[str, str]] = Counter()
    for offset, event, broker_time in records:
        single = PendingPopularity(settings.use_cases, 30.0, Mark())
        single.add(offset, event, broker_time)
        alone.update(dict(single.piece(offset + 1, whole=True).sums))
    assert _sums(settings, records, 1) == dict(alone), f"seed {seed}"
    for size in (2, 7, 100, 500):
        assert _sums(settings, records, size) == dict(alone), f"seed {seed}, {size} at once"


def _sums(
    settings: Settings, records: list[tuple[int, Interaction, float]], size: int
) -> dict[tuple[str, str], float]:
    """The sums of records that are added `size` at once, and cut every 500."""
    together = PendingPopularity(settings.use_cases, 30.0, Mark())
    sums: Counter[tuple[str, str]] = Counter()
    for cut in range(0, len(records), 500):
        part = records[cut : cut + 500]
        for first in range(0, len(part), size):
            offsets, events, times = map(list, zip(*part[first : first + size], strict=True))
            if size == 1:
                together.add(offsets[0], events[0], times[0])
            else:
                together.add_all(offsets, events, times)
        while together.mark.first <= part[-1][0]:
            sums.update(dict(together.piece(part[-1][0] + 1, whole=True).sums))
    return dict(sums)
