"""The simulated marketplace depends only on its seed, and has users and items for every engine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer

from core import codec
from core.settings import Settings
from core.types import Interaction, Item, User
from store.archive.archive import Archive
from store.log import client as log
from store.log.ends import ends
from streams.archiver.archiver import Archiver
from streams.simulator.events import Simulation
from testing.process import Child
from tests.support import eventually

START = 1_790_000_000.0
World = tuple[list[Item], list[User], list[Interaction]]


def simulate(seed: int = 42, users: int = 800, items: int = 300, events: int = 20_000) -> World:
    chunks = list(Simulation(seed, users, items, events, START, days=30).chunks())
    return (
        [item for chunk in chunks for item in chunk.items],
        [user for chunk in chunks for user in chunk.users],
        [event for chunk in chunks for event in chunk.events],
    )


@pytest.fixture(scope="module")
def world() -> World:
    return simulate()


def test_the_same_seed_gives_the_same_events_and_another_seed_others(world: World) -> None:
    assert simulate() == world
    assert simulate(seed=43)[2] != world[2]


def test_there_are_as_many_users_items_and_events_as_requested(world: World) -> None:
    items, users, events = world
    assert (len(items), len(users), len(events)) == (300, 800, 20_000)
    assert len({event.event_id for event in events}) == 20_000
    assert min(event.timestamp for event in events) >= START
    assert max(event.timestamp for event in events) < START + 30 * 86400 + 3600


def test_every_message_is_valid(world: World) -> None:
    use_cases = Settings(_env_file=None).use_cases  # type: ignore[call-arg]
    items, users, events = world
    for event in events[::50]:
        codec.decode_interaction(codec.encode_json(event), START + 31 * 86400, use_cases)
    for item in items:
        assert codec.decode_item(codec.encode_json(item), START + 31 * 86400) == item
    for user in users:
        assert codec.decode_user(codec.encode_json(user), START + 31 * 86400) == user


def test_users_and_items_arrive_before_their_first_event(world: World) -> None:
    users, items = set(), set()
    for chunk in Simulation(42, 800, 300, 20_000, START, days=30).chunks():
        items.update(item.item_id for item in chunk.items)
        users.update(user.user_id for user in chunk.users)
        for event in chunk.events:
            assert event.user_id in users
            assert event.item_id in items
    first = next(iter(Simulation(42, 800, 300, 20_000, START, days=30).chunks()))
    assert len(first.users) < 800
    assert len(first.items) < 300


def test_there_are_cold_warm_and_hot_users(world: World) -> None:
    counts = Counter(event.user_id for event in world[2])
    cold = sum(counts[user.user_id] < 5 for user in world[1])
    hot = sum(counts[user.user_id] >= 20 for user in world[1])
    assert cold >= 80
    assert hot >= 80
    assert 800 - cold - hot >= 80


def test_each_step_of_the_funnel_has_fewer_events(world: World) -> None:
    types = Counter(event.event_type for event in world[2])
    assert types["view"] > types["click"] > types["like"] > types["apply"] + types["invest"] > 0
    viewed = {(event.user_id, event.item_id) for event in world[2] if event.event_type == "view"}
    acted = {
        (event.user_id, event.item_id)
        for event in world[2]
        if event.event_type in ("apply", "invest")
    }
    assert len(acted - viewed) < 0.02 * len(acted)


def test_a_few_items_get_most_of_the_views(world: World) -> None:
    views = sorted(Counter(event.item_id for event in world[2]).values(), reverse=True)
    assert sum(views[:30]) > 0.3 * sum(views)


def test_users_like_items_of_their_declared_interests(world: World) -> None:
    """The content engine needs this.

    Shared sectors are more frequent than by chance, and more frequent for likes than for views.
    """
    sectors = {item.item_id: set(item.categories) for item in world[0]}
    interests = {user.user_id: set(user.interests) for user in world[1]}

    def match(events: list[Interaction], shift: int = 0) -> float:
        pairs = zip(events, events[shift:] + events[:shift], strict=True)
        return sum(
            bool(sectors[one.item_id] & interests[other.user_id]) for one, other in pairs
        ) / len(events)

    views = [event for event in world[2] if event.event_type == "view"]
    likes = [event for event in world[2] if event.event_type == "like"]
    assert match(likes) > match(views) > 1.3 * match(views, shift=len(views) // 2)


def test_items_co_occur_more_often_than_popularity_explains(world: World) -> None:
    """ALS needs this: users who like one item like the same other items."""
    liked: dict[str, set[str]] = {}
    for event in world[2]:
        if event.event_type in ("click", "like", "save"):
            liked.setdefault(event.item_id, set()).add(event.user_id)
    popular = sorted(liked, key=lambda item: -len(liked[item]))[:40]
    total = len({user for users in liked.values() for user in users})
    lifts = [
        math.log((len(liked[a] & liked[b]) + 0.5) / (len(liked[a]) * len(liked[b]) / total + 0.5))
        for a in popular
        for b in popular
        if a < b
    ]
    spread = math.sqrt(sum((lift - sum(lifts) / len(lifts)) ** 2 for lift in lifts) / len(lifts))
    assert spread > 0.2


@pytest.mark.process
def test_the_command_fills_the_topics_and_names_a_user_of_each_segment(
    broker: object, settings: Settings, spawn: Callable[..., Child], tmp_path: Path
) -> None:
    summary = tmp_path / "summary.json"
    options = f"--events 5000 --users 300 --items 100 --start {START}".split()
    child = spawn("streams", "simulate", *options, "--summary", str(summary))
    assert child.wait(60) == 0, child.tail()
    assert Archiver(settings).run(until_idle=True) == 5000
    result = msgspec.json.decode(summary.read_bytes())
    assert sum(result["segments"].values()) == 300
    rows = [
        row
        for table in Archive(settings.archive_url).read(settings.interactions_topic)
        for row in table.to_pylist()
    ]
    counts = Counter(row["user_id"] for row in rows)
    assert all(row["error"] is None for row in rows)
    assert counts[result["cold"]] < 5 <= counts[result["warm"]] < 20 <= counts[result["hot"]]
    dry_run = spawn("streams", "simulate", *options, "--dry-run")
    assert dry_run.wait(60) == 0, dry_run.tail()
    printed = [line for line in dry_run.log.read_bytes().splitlines() if b'"event_id"' in line]
    assert {msgspec.json.decode(line)["event_id"] for line in printed} == {
        row["event_id"] for row in rows
    }


@pytest.mark.process
def test_live_events_are_sent_at_a_rate_until_the_command_is_stopped(
    broker: object, settings: Settings, spawn: Callable[..., Child]
) -> None:
    log.ensure_topics(settings)
    options = ["--events", "0", "--users", "100", "--items", "50", "--forever", "--rate", "100"]
    child = spawn("streams", "simulate", *options)
    consumer = Consumer(log.consumer_config(settings, "ends"))

    def arrived() -> int:
        partitions = range(settings.topic_partitions)
        return sum(
            ends(settings, consumer, settings.interactions_topic, partition, 0)[1]
            for partition in partitions
        )

    eventually(lambda: child.alive and arrived() > 50, "live events arrive")
    consumer.close()
    child.stop()
    assert child.exit_code == 0, child.tail()
