"""A refresh does not slow down reads: it computes what they need, and its thread rests."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from msgspec.structs import replace
from redis import Redis

from api.live_view.view import LiveView
from api.metrics import Metrics
from core.settings import Settings
from core.types import Filters, Request, UserState
from engines.selection import columns
from tests.api.world import live_view, publish, store_items
from tests.engines.world import ITEMS
from tests.support import eventually


@pytest.fixture
def view(settings: Settings, redis: Redis) -> LiveView:
    publish(settings)
    return live_view(settings.model_copy(update={"refresh_s": 0.01}), Metrics())


@pytest.mark.parametrize("in_redis", [False, True])
def test_the_swap_computes_what_the_first_reads_of_a_new_bundle_need(
    view: LiveView,
    settings: Settings,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    in_redis: bool,
) -> None:
    if in_redis:
        store_items(redis, *ITEMS)
    use_case = settings.use_cases.by_name["developer_startup"]
    usual = Request(use_case=use_case, engine="popular", limit=100)
    picky = replace(usual, filters=Filters(categories=("fintech",)))
    view.refresh()
    expected = [
        view.current.recommend(UserState(user_id="new"), request).recommendations
        for request in (usual, picky)
    ]
    before = view.current
    assert publish(settings) != before.bundle.version
    view.refresh()
    assert view.current is not before
    monkeypatch.setattr(columns.Column, "extended", None)
    monkeypatch.setattr("builtins.sorted", None)
    answers = [
        view.current.recommend(UserState(user_id="new"), request).recommendations
        for request in (usual, picky)
    ]
    monkeypatch.undo()
    view.stop()
    assert answers == expected
    assert all(expected)


def test_the_refresh_thread_rests_and_a_starting_process_does_not(
    view: LiveView, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: Counter[str] = Counter()
    sleep = time.sleep

    def noted(seconds: float) -> None:
        rests[threading.current_thread().name] += 1
        sleep(seconds)

    monkeypatch.setattr("core.process.background.time.sleep", noted)
    view.refresh()
    assert not rests
    view.start()
    version = publish(settings)
    eventually(lambda: view.current.bundle.version == version, "the next bundle is live")
    view.stop()
    assert rests["live-view"] > 0
