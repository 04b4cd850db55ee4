"""Every call of both HTTP clients against a real API."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import Redis

from core.settings import Settings
from eddyline_client import (
    Event,
    EventsRejected,
    Item,
    RequestRejected,
    RetryPolicy,
    Unauthorized,
    Unavailable,
    User,
)
from eddyline_client.exchange import MAX_EVENTS
from testing.process import ROOT
from tests.api.world import KEY, publish, remember
from tests.clients.support import (
    KINDS,
    QUICK,
    Client,
    answers,
    client,
    free_port,
    like,
    serve_world,
)
from tests.conftest import Spawn
from tests.support import eventually


def test_every_call_of_both_clients_works_against_the_api_and_ingest(
    settings: Settings, redis: Redis, broker: object, spawn: Spawn, backend_python: Path
) -> None:
    url = serve_world(settings, redis, spawn)
    *_, example = re.findall(
        r"```python\n(.*?)```", (ROOT / "clients/python/README.md").read_text(), re.DOTALL
    )
    pasted = example.replace("http://127.0.0.1:8000", url).replace(
        'api_key="..."', f'api_key="{KEY}"'
    )
    done = subprocess.run(
        [backend_python, "-I", "-c", pasted], capture_output=True, text=True, env={}, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 "), "the example of the README prints the first recommendation"
    for kind in KINDS:
        with client(kind, url + "/", api_key=KEY, timeout_s=60) as connected:
            _every_call(connected, f"{kind}/ü ..?")
        with client(kind, url, api_key="wrong") as stranger, pytest.raises(Unauthorized) as refused:
            stranger.send_events(like())
        assert (refused.value.status, refused.value.error) == (401, "unauthorized")


def _every_call(connected: Client, user_id: str) -> None:
    """`user_id`: an unknown user, with characters that a path must encode."""
    declared = connected.upsert_user(User(user_id=user_id, interests=["health"]))
    assert declared.id == user_id
    state = connected.user(user_id, after=declared.token)
    assert (state.profile, state.interaction_count, state.stale) == (
        User(user_id=user_id, interests=["health"]),
        0,
        False,
    )
    assert connected.recommend(user_id, limit=1).recommendations[0].method == "content_based"

    events = [like(user_id, item) for item in ("pay", "bank", "pay", "bank", "pay", "bank")]
    sent = connected.send_events(events)
    assert (sent.accepted, sent.rejected) == (6, 0)
    assert [result.event_id for result in sent.results] == [event.event_id for event in events]
    answer = connected.recommend(
        user_id, use_case="developer_startup", limit=2, category="fintech", after=sent.token
    )
    assert (answer.interaction_count, answer.as_of, answer.method_used, answer.stale) == (
        6,
        6,
        "als",
        False,
    )
    assert answer.recommendations[0].item_id == "coin"
    assert answer.recommendations[0].reasons[0].items
    everything = connected.recommend(
        user_id,
        limit=5,
        include_seen=True,
        exclude=["pay", "pill"],
        attr={"stage": ["seed", "growth"], "founded.min": 2015},
        reasons=False,
    )
    assert {line.item_id for line in everything.recommendations} == {"coin", "gene"}
    again = connected.send_events(events[0])
    assert connected.user(user_id, after=again.token).interaction_count == 6, (
        "a repeated event_id counts once"
    )

    explanation = connected.explain(user_id, "coin", use_case="developer_startup")
    assert (explanation.shown, explanation.method_used) == (True, "als")
    assert "als" in {view.engine for view in explanation.engines}
    assert connected.explain(user_id, "pay", use_case="developer_startup").removed_by
    preview = connected.preview(user_id, limit=2, event=["like:coin"], without=["pay"])
    assert (preview.interaction_count, preview.answer.interaction_count) == (4, 4)
    assert "als" in {alone.engine for alone in preview.engines if alone.recommendations}
    assert connected.items(q="pay", limit=1).items[0].item_id == "pay"
    assert connected.similar_items("pay", limit=1).recommendations[0].item_id in ("bank", "coin")
    assert (
        connected.popular(use_case="investor_startup", limit=1, window="day").method_used
        == "popular"
    )
    assert connected.similar_users(user_id, limit=3).cause, (
        "the world's model was not trained on users"
    )

    new = connected.upsert_item(
        Item(
            item_id="new/one",
            item_type="startup",
            categories=["fintech"],
            attributes={"only": True},
        )
    )
    assert new.id == "new/one"
    fresh = connected.recommend(user_id, after=new.token, attr={"only": True})
    assert [line.item_id for line in fresh.recommendations] == ["new/one"]
    entry = connected.item("new/one", after=new.token).item
    assert (entry.item_type, entry.attributes) == ("startup", {"only": True})
    hidden = connected.patch_item("new/one", {"available": False, "title": "One"})
    assert (
        connected.recommend(user_id, after=hidden.token, attr={"only": True}).recommendations == []
    )
    entry = connected.item("new/one", after=hidden.token).item
    assert (entry.available, entry.title, entry.categories) == (False, "One", ["fintech"])
    assert "new/one" in {item.item_id for item in connected.items(limit=1000).items}
    connected.patch_item("new/one", {"available": True})
    many = connected.upsert_items([Item(item_id=f"many-{n}", item_type="other") for n in (1, 2)])
    assert (many.accepted, [result.id for result in many.results]) == (2, ["many-1", "many-2"])
    users = connected.upsert_users([User(user_id=f"{user_id}-2", interests=["health"])])
    assert users.accepted == 1
    patched = connected.patch_user(f"{user_id}-2", {"roles": ["developer"]})
    assert connected.user(f"{user_id}-2", after=patched.token).profile == User(
        user_id=f"{user_id}-2", roles=["developer"], interests=["health"]
    )
    gone = connected.delete_item("new/one")
    assert connected.recommend(user_id, after=gone.token, attr={"only": True}).recommendations == []

    forgotten = connected.delete_user(user_id)
    assert connected.user(user_id, after=forgotten.token).known is False

    with pytest.raises(
        EventsRejected,
        match=r"1 of 2 events were rejected; the first is number 1.*unknown_event_type",
    ) as rejected:
        connected.send_events(
            [like(user_id), Event(user_id=user_id, item_id="pay", event_type="teleport")]
        )
    assert [result.error for result in rejected.value.results.results] == [
        None,
        "unknown_event_type",
    ]
    with pytest.raises(EventsRejected, match="1 of 1 events"):
        connected.send_events(Event(user_id=user_id, item_id="pay", event_type="teleport"))
    with pytest.raises(RequestRejected, match="limit must be") as wrong:
        connected.recommend(user_id, limit=1000)
    assert (wrong.value.status, wrong.value.error) == (422, "invalid_parameter")
    many = connected.send_events(
        like(user_id, f"item-{number}") for number in range(MAX_EVENTS + 1)
    )
    assert (many.accepted, [result.index for result in many.results]) == (
        MAX_EVENTS + 1,
        list(range(MAX_EVENTS + 1)),
    )
    assert connected.send_events([]).results == []


def test_a_call_is_retried_until_a_killed_server_is_back(
    settings: Settings, redis: Redis, broker: object, spawn: Spawn
) -> None:
    publish(settings)
    remember(redis, "warm", "pay", "bank", events=7)
    url = f"http://127.0.0.1:{free_port()}"
    environment = {"API_PORT": url.rpartition(":")[2], "API_KEYS": KEY}
    patient = RetryPolicy(attempts=1000, first_wait_s=0.05, longest_wait_s=0.2, total_s=90)
    server = spawn("api", **environment)
    eventually(lambda: answers(url), "the API answers", 60)
    with (
        client("blocking", url, api_key=KEY, retries=patient) as blocking,
        client("async", url, api_key=KEY, retries=patient) as asynchronous,
        ThreadPoolExecutor(4) as pool,
    ):
        for one in (blocking, asynchronous):  # connections that the kill breaks
            assert one.recommend("warm").method_used == "als"
        server.kill()
        reads = [pool.submit(one.recommend, "warm") for one in (blocking, asynchronous)]
        writes = [pool.submit(one.send_events, like()) for one in (blocking, asynchronous)]
        with (
            client("blocking", url, retries=QUICK) as impatient,
            pytest.raises(Unavailable, match=r"after 4 attempts; the last one: Connect"),
        ):
            impatient.popular()
        assert not any(call.done() for call in (*reads, *writes))
        spawn("api", **environment)
        assert [read.result(90).method_used for read in reads] == ["als", "als"]
        assert all(write.result(90).token for write in writes)
