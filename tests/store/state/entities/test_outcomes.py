"""Counts the outcomes of experiments on a real Redis, and removes those of deleted users."""

from __future__ import annotations

from pathlib import Path

from redis import Redis

from core import experiments, use_cases
from core.experiments import recommendation_id
from core.settings import Settings
from store.state import keys
from store.state.apply.batches import UNKNOWN_DELETIONS, Event, OffsetRange
from store.state.apply.planner import Planner
from store.state.entities import experiments as store
from store.state.entities.experiments import Exposures
from tests.store.state.entities.experiment import (
    CONTROL,
    HALF,
    HASHER,
    OUTSIDE,
    RUNNING,
    TOML,
    A,
    B,
    C,
    Writer,
    event,
    fail_on_loss,
)


def test_an_event_is_an_outcome_of_the_variant_whose_answer_led_to_it(
    redis: Redis, writer: Writer
) -> None:
    mine, yours = recommendation_id(CONTROL), recommendation_id(HALF)
    writer.apply(
        event(A, "view", mine),
        event(A, "like", mine),
        event(B, "rating", recommendation_id(CONTROL), value=4.5),
        event(B, "dismiss", mine),
        event(C, "view", yours),
        event(A, "apply", None),
        event(A, "apply", recommendation_id(None)),
    )
    writer.apply(event(A, "view", mine))
    control, half = store.read([redis], CONTROL.id), store.read([redis], HALF.id)
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
    writer.apply(event(A, "view", mine), event(A, "like", mine), event(B, "view", mine))
    assert store.read([redis], control.id) == ({}, {A: 3}, {"view": 2, "like": 1})


def test_a_forged_recommendation_id_is_no_outcome(redis: Redis, writer: Writer) -> None:
    writer.apply(
        event(A, "like", recommendation_id(HALF)),
        event(OUTSIDE, "like", recommendation_id(CONTROL)),
        event(C, "like", "x" * 99),
    )
    assert redis.keys("experiment:*") == []
    assert redis.hget(f"user:{A.replace(':', '%3A')}", "events") == b"1"


def test_a_planner_without_experiments_ignores_recommendation_ids(settings: Settings) -> None:
    plain = [Event(event(A, "like", None), 1.0)]
    with_id = [Event(event(A, "like", recommendation_id(CONTROL)), 1.0)]
    batches = [
        Planner(settings.use_cases).plan(OffsetRange("t", 0, 0, 1), events, UNKNOWN_DELETIONS)
        for events in (plain, with_id)
    ]
    assert batches[0].payload == batches[1].payload


def test_a_deleted_user_is_removed_from_running_and_former_experiments(
    redis: Redis, settings: Settings
) -> None:
    former = experiments.parse(TOML.replace("0.5 }", "0.7 }"), use_cases.load(None))
    assert former.all[0].tag != RUNNING.all[0].tag
    before, (control, _) = Writer(settings, former), former.all[0].variants
    before.apply(
        event(A, "like", recommendation_id(control)), event(B, "like", recommendation_id(control))
    )
    exposures = Exposures(former, 10, fail_on_loss, HASHER)
    exposures.add(control, A)
    exposures.write(redis)
    now = Writer(settings, position=before.position)
    now.apply(
        event(A, "like", recommendation_id(CONTROL)), event(B, "like", recommendation_id(CONTROL))
    )
    now.delete(A, broker_time=20.0)
    assert store.read([redis], control.id) == ({}, {B: 3}, {"like": 2})
    assert store.read([redis], CONTROL.id).outcomes == {B: 3}
    now.apply(event(A, "save", recommendation_id(CONTROL)), broker_time=15.0)
    assert store.read([redis], CONTROL.id).outcomes == {B: 3}
    # comes back, as a new user
    now.apply(event(A, "view", recommendation_id(CONTROL)), broker_time=25.0)
    assert store.read([redis], CONTROL.id).outcomes == {A: 1, B: 3}


def test_a_deleted_user_is_removed_from_running_experiments_without_a_stored_definition(
    redis: Redis, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "experiments.toml"
    path.write_text(TOML)
    writer = Writer(settings.model_copy(update={"experiments_path": path}))
    # emptied after its settings were noted, and filled again by events
    redis.delete(keys.ONLY.experiments)
    writer.apply(
        event(A, "like", recommendation_id(CONTROL)), event(B, "like", recommendation_id(CONTROL))
    )
    writer.delete(A, broker_time=20.0)
    assert store.read([redis], CONTROL.id).outcomes == {B: 3}
