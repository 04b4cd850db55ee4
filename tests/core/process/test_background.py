"""Work in the background keeps to its share; anywhere else it does not wait."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from core.process import background
from core.process.background import EVERY, SHARE, WORK_S, in_background, rest, resting


class Clock:
    """A thread's clock, moved by hand; what slept, in seconds."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, [0.0]

    def thread_time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(
        background, "time", SimpleNamespace(thread_time=made.thread_time, sleep=made.sleep)
    )
    return made


def test_it_sleeps_until_its_work_was_its_share(clock: Clock) -> None:
    with in_background():
        for worked in (WORK_S, 0.02, 0.0001, 0.0001, WORK_S):
            clock.now += worked
            rest()
    worked, slept = clock.now - 100.0, sum(clock.slept)
    assert worked / (worked + slept) == pytest.approx(SHARE)
    assert len(clock.slept) == 4  # a little work waits for more


def test_only_the_thread_that_asked_for_it_rests_and_only_within_the_block(clock: Clock) -> None:
    def elsewhere() -> None:
        clock.now += 1.0
        rest()

    with in_background():
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
    elsewhere()
    assert sum(clock.slept) == 0


def test_a_long_loop_rests_on_its_way_and_loses_nothing(clock: Clock) -> None:
    seen = []
    with in_background():
        for number in resting(range(10 * EVERY)):
            seen.append(number)
            clock.now += WORK_S
    assert seen == list(range(10 * EVERY))
    assert max(clock.slept) <= (EVERY + 1) * WORK_S * (1 / SHARE - 1)
