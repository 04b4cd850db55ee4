"""A new bundle goes live under a running API process while it answers."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter

import httpx
import pytest
from redis import Redis

from api.metrics import Metrics
from core.settings import Settings
from core.types import HistoryEvent, Request, UserState
from engines.explain import explain
from models.registry import Registry
from tests.api.world import FOR_DEVELOPER, live_view, port_of, publish, remember
from tests.conftest import Spawn
from tests.support import eventually

SWAPS = 6


def test_a_replaced_bundle_is_freed_without_the_garbage_collector(
    settings: Settings, redis: Redis
) -> None:
    """The collector ignores bundles (they would make it slow), so none may be part of a cycle."""
    publish(settings)
    remember(redis, "warm", "pay", "bank", events=7)
    view = live_view(settings, Metrics())
    view.refresh()
    gc.disable()
    try:
        state = UserState(
            user_id="warm",
            events=7,
            history=[HistoryEvent(0, "like", "pay"), HistoryEvent(0, "view", "bank")],
        )
        for engine in (None, "als", "content_based", "popular"):
            view.current.recommend(state, Request(engine=engine, explore=0.2, diversity=0.2))
            explain(view.current, state, "pay", Request(engine=engine))
        view.current.similar("pay", Request())
        parts = [
            view.current,
            view.current.catalogue,
            *view.current.bundle.parts.values(),
            *view.current.engines.values(),
        ]
        references = [weakref.ref(part) for part in parts]
        del parts
        assert publish(settings) != view.current.bundle.version
        view.refresh()
        assert [reference() for reference in references if reference() is not None] == []
    finally:
        gc.enable()
        view.stop()


@pytest.mark.process
def test_no_read_fails_and_no_answer_mixes_bundles_during_swaps(
    settings: Settings, redis: Redis, spawn: Spawn, broker: object
) -> None:
    """Each bundle has a title of its own on every item: an answer's titles must all be those of the
    version it names.
    """
    from msgspec.structs import replace

    from tests.engines.world import ITEMS

    def titled(number: int) -> str:
        return publish(settings, items=[replace(item, title=f"bundle {number}") for item in ITEMS])

    titles = {titled(0): "bundle 0"}
    remember(redis, "warm", "pay", "bank", events=7)
    child = spawn("api", REFRESH_S="0.05")
    port = eventually(lambda: child.alive and port_of(child.log.read_text()), "the API serves")
    seen: Counter[tuple[int, str, str]] = Counter()
    stop = threading.Event()

    def read() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            while not stop.is_set():
                answer = client.get(f"{FOR_DEVELOPER}/warm?limit=5")
                body = answer.json()
                for line in body["recommendations"]:
                    seen[answer.status_code, body["model_version"], line["metadata"]["title"]] += 1

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        eventually(lambda: seen, "the first bundle answers")
        for number in range(1, SWAPS + 1):
            version = titled(number)
            titles[version] = f"bundle {number}"
            eventually(
                lambda version=version: any(key[1] == version for key in list(seen)),
                f"{version} answers",
            )
        back = Registry(settings.models_path).rollback()
        before = sum(count for key, count in seen.items() if key[1] == back)
        eventually(
            lambda: sum(count for key, count in list(seen.items()) if key[1] == back) > before,
            "the one before answers again",
        )
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert {status for status, _, _ in seen} == {200}
    assert {(version, title) for _, version, title in seen} <= set(titles.items())
    assert len({version for _, version, _ in seen}) == SWAPS + 1
