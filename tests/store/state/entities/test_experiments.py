"""What became of experiments' answers, on a real Redis: outcomes with the counters, exposures
beside them, nothing of a deleted user.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis

from core import experiments, use_cases
from core.deletions import IdHasher
from core.errors import StoreUnavailable
from core.experiments import Variant, recommendation_id
from core.settings import Settings
from core.types import Interaction
from store.state import connection, keys, wipe
from store.state.apply import deletions
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, Event, OffsetRange
from store.state.apply.planner import Planner
from store.state.entities import experiments as store
from store.state.entities.experiments import Exposures
from tests.support import delete_user

TOML = """
[experiments.blend]
users = [0.0, 0.5]
variants = { control = {}, half = { ensemble_als_weight = 0.5 } }
"""
HASHER = IdHasher(SecretStr(""))
RUNNING = experiments.parse(TOML, use_cases.load(None))
CONTROL, HALF = RUNNING.all[0].variants


def _users(variant: Variant | None, count: int) -> list[str]:
    every = (f"user:{number}" for number in range(100_000))
    return [user for user in every if RUNNING.assign(user, None) is variant][:count]


A, B = _users(CONTROL, 2)
(C,) = _users(HALF, 1)
(OUTSIDE,) = _users(None, 1)


def _event(
    user: str, event_type: str, answer: str | None, value: float | None = None
) -> Interaction:
    return Interaction("e", user, "i", event_type, 1.0, value, recommendation_id=answer)


def _never() -> None:
    raise AssertionError("an exposure is lost")


class Writer:
    """Applies events and deletions in turn, as ingest does."""

    def __init__(self, settings: Settings, running: experiments.Experiments = RUNNING) -> None:
        self._planner = Planner(settings.use_cases, running)
        self._client = connection.connect(settings)
        self._applier = Applier(self._client, self._planner, 50, HASHER)
        self._settings = settings
        deletions.mark_ready(self._client)
        self._at, self._users_at = 0, 0
        store.save_definitions(self._client, running)

    def apply(self, *events: Interaction, broker_time: float = 10.0) -> None:
        stamped = [Event(event, broker_time) for event in events]
        batch = self._planner.plan(
            OffsetRange("t", 0, self._at, self._at + len(events)), stamped, UNKNOWN_DELETIONS
        )
        self._applier.apply(batch)
        self._at = batch.offsets.next

    def delete(self, user: str, broker_time: float) -> None:
        delete_user(self._settings, user, broker_time, self._users_at)
        self._users_at += 1


@pytest.fixture
def writer(settings: Settings) -> Writer:
    return Writer(settings)


def test_events_count_for_the_variant_whose_answer_led_to_them(
    redis: Redis, writer: Writer
) -> None:
    mine, yours = recommendation_id(CONTROL), recommendation_id(HALF)
    writer.apply(
        _event(A, "view", mine),
        _event(A, "like", mine),
        _event(B, "rating", recommendation_id(CONTROL), value=4.5),
        _event(B, "dismiss", mine),
        _event(C, "view", yours),
        _event(A, "apply", None),
        _event(A, "apply", recommendation_id(None)),
    )
    writer.apply(_event(A, "view", mine))
    control, half = store.read(redis, CONTROL.id), store.read(redis, HALF.id)
    assert control.outcomes == {A: 1 + 3 + 1, B: 4.5}
    assert control.events == {"view": 2, "like": 1, "rating": 1, "dismiss": 1}
    assert (half.outcomes, half.events) == ({C: 1}, {"view": 1})


def test_only_outcomes_that_an_experiment_names_count_for_its_users(
    redis: Redis, settings: Settings
) -> None:
    running = experiments.parse(
        TOML.replace("users =", 'outcomes = ["like", "apply"]\nusers ='), use_cases.load(None)
    )
    control = running.all[0].variants[0]
    writer, mine = Writer(settings, running), recommendation_id(control)
    writer.apply(_event(A, "view", mine), _event(A, "like", mine), _event(B, "view", mine))
    assert store.read(redis, control.id) == ({}, {A: 3}, {"view": 2, "like": 1})


def test_a_forged_id_counts_nothing_but_the_event_itself(redis: Redis, writer: Writer) -> None:
    writer.apply(
        _event(A, "like", recommendation_id(HALF)),
        _event(OUTSIDE, "like", recommendation_id(CONTROL)),
        _event(C, "like", "x" * 99),
    )
    assert redis.keys("experiment:*") == []
    assert redis.hget(f"user:{A.replace(':', '%3A')}", "events") == b"1"


def test_without_experiments_the_very_same_commands_are_sent(settings: Settings) -> None:
    plain = [Event(_event(A, "like", None), 1.0)]
    with_id = [Event(_event(A, "like", recommendation_id(CONTROL)), 1.0)]
    batches = [
        Planner(settings.use_cases).plan(OffsetRange("t", 0, 0, 1), events, UNKNOWN_DELETIONS)
        for events in (plain, with_id)
    ]
    assert batches[0].payload == batches[1].payload


def test_a_deleted_user_is_removed_from_every_experiment_ever_and_older_events_stay_out(
    redis: Redis, settings: Settings
) -> None:
    former = experiments.parse(TOML.replace("0.5 }", "0.7 }"), use_cases.load(None))
    assert former.all[0].tag != RUNNING.all[0].tag
    before, (control, _) = Writer(settings, former), former.all[0].variants
    before.apply(
        _event(A, "like", recommendation_id(control)), _event(B, "like", recommendation_id(control))
    )
    exposures = Exposures(former, 10, _never, HASHER)
    exposures.add(control, A)
    exposures.write(redis)
    now = Writer(settings)
    now._at, now._users_at = before._at, 0
    now.apply(
        _event(A, "like", recommendation_id(CONTROL)), _event(B, "like", recommendation_id(CONTROL))
    )
    now.delete(A, broker_time=20.0)
    assert store.read(redis, control.id) == ({}, {B: 3}, {"like": 2})
    assert store.read(redis, CONTROL.id).outcomes == {B: 3}
    now.apply(_event(A, "save", recommendation_id(CONTROL)), broker_time=15.0)
    assert store.read(redis, CONTROL.id).outcomes == {B: 3}
    # comes back, as a new user
    now.apply(_event(A, "view", recommendation_id(CONTROL)), broker_time=25.0)
    assert store.read(redis, CONTROL.id).outcomes == {A: 1, B: 3}


def test_a_deleted_user_is_removed_from_running_experiments_that_an_emptied_redis_has_not_noted(
    redis: Redis, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "experiments.toml"
    path.write_text(TOML)
    writer = Writer(settings.model_copy(update={"experiments_path": path}))
    # emptied after its settings were noted, and filled again by events
    redis.delete(keys.EXPERIMENTS)
    writer.apply(
        _event(A, "like", recommendation_id(CONTROL)), _event(B, "like", recommendation_id(CONTROL))
    )
    writer.delete(A, broker_time=20.0)
    assert store.read(redis, CONTROL.id).outcomes == {B: 3}


def test_exposures_add_up_and_are_written_once(redis: Redis) -> None:
    exposures = Exposures(RUNNING, 1000, _never, HASHER)
    for user, variant in ((A, CONTROL), (B, CONTROL), (A, CONTROL), (C, HALF)):
        exposures.add(variant, user)
    exposures.write(redis)
    exposures.write(redis)
    assert store.read(redis, CONTROL.id).exposed == {A: 2, B: 1}
    exposures.add(CONTROL, A)
    exposures.write(redis)
    assert store.read(redis, CONTROL.id).exposed == {A: 3, B: 1}
    assert store.read(redis, HALF.id).exposed == {C: 1}
    (definition,) = store.definitions(redis).values()
    assert definition.name == "blend"
    assert [(variant.name, dict(variant.overrides)) for variant in definition.variants] == [
        ("control", {}),
        ("half", {"ensemble_als_weight": 0.5}),
    ]


def test_exposures_wait_while_redis_is_away(
    redis: Redis, own_redis_server: Any, settings: Settings
) -> None:
    exposures = Exposures(RUNNING, 1000, _never, HASHER)
    client = connection.connect(settings, 1.0)
    for number in range(700):  # more than one transaction
        exposures.add(CONTROL, str(number))
    own_redis_server.kill()
    with pytest.raises(StoreUnavailable):
        exposures.write(client)
    exposures.add(CONTROL, "0")
    own_redis_server.start()
    exposures.write(client)
    exposed = store.read(client, CONTROL.id).exposed
    assert len(exposed) == 700
    assert exposed["0"] == 2


def test_an_exposure_before_the_deletion_does_not_bring_the_user_back(
    redis: Redis, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    exposures = Exposures(RUNNING, 1000, _never, HASHER)
    exposures.add(CONTROL, A)
    exposures.write(redis)
    exposures.add(CONTROL, A)
    exposures.add(CONTROL, B)
    writer.delete(A, broker_time=20.0)
    exposures.write(redis)
    assert store.read(redis, CONTROL.id).exposed == {B: 1}
    exposures.add(CONTROL, A)  # comes back
    exposures.write(redis)
    assert store.read(redis, CONTROL.id).exposed == {A: 1, B: 1}
    exposures.add(CONTROL, A)
    # deleted between the look and the write
    _at_multi(monkeypatch, lambda: writer.delete(A, broker_time=30.0))
    exposures.write(redis)
    assert store.read(redis, CONTROL.id).exposed == {B: 1}


def _at_multi(monkeypatch: pytest.MonkeyPatch, deed: Any) -> None:
    """Do `deed` just before the next MULTI of a pipeline, once."""
    from redis.client import Pipeline

    multi, deeds = Pipeline.multi, [deed]

    def late(pipe: Pipeline) -> None:
        if deeds:
            deeds.pop()()
        multi(pipe)

    monkeypatch.setattr(Pipeline, "multi", late)


def test_both_ends_are_bounded(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST_WAITING", 3)
    lost: list[int] = []
    exposures = Exposures(RUNNING, 2, lambda: lost.append(1), HASHER)
    for user in ("1", "2", "1", "4"):
        exposures.add(HALF, user)
    assert len(lost) == 1
    exposures.write(redis)
    exposures.add(HALF, "1")
    exposures.add(HALF, "5")
    exposures.write(redis)
    assert store.read(redis, HALF.id).exposed == {"1": 3, "2": 1}


def test_what_waits_while_redis_is_away_is_bounded(
    redis: Redis, own_redis_server: Any, settings: Settings, monkeypatch: Any
) -> None:
    monkeypatch.setattr(store, "MOST_WAITING", 3)
    lost: list[int] = []
    exposures = Exposures(RUNNING, 100, lambda: lost.append(1), HASHER)
    client = connection.connect(settings, 1.0)
    own_redis_server.kill()
    for number in range(10):
        exposures.add(HALF, str(number))
        with pytest.raises(StoreUnavailable):
            exposures.write(client)
    own_redis_server.start()
    exposures.write(client)
    exposures.write(client)
    assert sorted(store.read(client, HALF.id).exposed) == ["0", "1", "2", "3", "4", "5"]
    assert len(lost) == 4


def test_a_forgotten_experiment_leaves_no_key(redis: Redis, writer: Writer) -> None:
    exposures = Exposures(RUNNING, 10, _never, HASHER)
    exposures.add(HALF, C)
    exposures.write(redis)
    writer.apply(_event(C, "like", recommendation_id(HALF)))
    assert store.forget(redis, HALF.tag)
    assert redis.keys("experiment*") == []
    assert not store.forget(redis, HALF.tag)


def test_every_key_of_an_experiment_is_known_to_a_wipe_but_exposures(
    redis: Redis, writer: Writer, settings: Settings
) -> None:
    """What the log can make again goes; what is nowhere else stays."""
    exposures = Exposures(RUNNING, 10, _never, HASHER)
    exposures.add(HALF, C)
    exposures.write(redis)
    writer.apply(_event(C, "like", recommendation_id(HALF)))
    wipe.wipe(connection.connect(settings))
    assert sorted(redis.keys("*")) == [f"experiment:{HALF.id}:exposed".encode(), b"experiments"]
