"""Background work stays within its share of the time; other work never sleeps."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from core.process import background
from core.process.background import EVERY, SHARE, WORK_S, in_background, pause, with_pauses


class Clock:
    """A CPU clock that the test moves, and the sleeps in seconds."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, [0.0]

    def thread_time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(
        background, "time", SimpleNamespace(thread_time=fake.thread_time, sleep=fake.sleep)
    )
    return fake


def test_a_background_thread_sleeps_until_its_work_is_within_its_share(clock: Clock) -> None:
    with in_background():
        for worked in (WORK_S, 0.02, 0.0001, 0.0001, WORK_S):
            clock.now += worked
            pause()
    worked, slept = clock.now - 100.0, sum(clock.slept)
    assert worked / (worked + slept) == pytest.approx(SHARE)
    assert len(clock.slept) == 4  # no pause after less than WORK_S


def test_only_a_thread_in_the_block_is_throttled(clock: Clock) -> None:
    def elsewhere() -> None:
        clock.now += 1.0
        pause()

    with in_background():
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
    elsewhere()
    assert sum(clock.slept) == 0


def test_a_long_loop_pauses_and_loses_no_entry(clock: Clock) -> None:
    numbers = []
    with in_background():
        for number in with_pauses(range(10 * EVERY)):
            numbers.append(number)
            clock.now += WORK_S
    assert numbers == list(range(10 * EVERY))
    assert max(clock.slept) <= (EVERY + 1) * WORK_S * (1 / SHARE - 1)
