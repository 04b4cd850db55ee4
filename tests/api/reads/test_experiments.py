"""Experiments as an application engineer sees them: an id in each answer, the user's variant in it,
and what is noted of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from core import experiments, use_cases
from core.errors import ConfigurationError
from core.settings import Settings
from core.types import Recommendations
from engines.explain import Explanation
from store.state.entities import experiments as store
from tests.api.world import FOR_DEVELOPER, Client, checked, publish, remember, serving, shown
from tests.support import eventually

TOML = """
[experiments.colder]
users = [0.0, 0.5]
variants = { control = {}, colder = { cold_start_threshold = 10 } }

[experiments.startups]
users = [0.5, 0.75]
use_cases = ["developer_startup"]
variants = { control = {}, popular = { enable_als = false, diversity = 0.9 } }
"""
EXPERIMENTS = experiments.parse(TOML, use_cases.load(None))


def _user(label: str | None) -> str:
    """One whom the hash draws into that variant."""
    for number in range(10_000):
        variant = EXPERIMENTS.assign(f"user-{number}", "developer_startup")
        if (variant and variant.label) == label:
            return f"user-{number}"
    raise AssertionError(label)


@pytest.fixture
def running(settings: Settings, redis: Redis, tmp_path: Path) -> Iterator[Client]:
    path = tmp_path / "experiments.toml"
    path.write_text(TOML)
    publish(settings)
    for variant in (*EXPERIMENTS.by_id.values(), None):
        remember(
            redis, _user(variant and variant.label), "pay", "bank", events=7, interests=["health"]
        )
    with serving(settings, experiments_path=path) as client:
        yield client


def _answer(
    api: Client, label: str | None, path: str = FOR_DEVELOPER, query: str = ""
) -> Recommendations:
    return checked(api.get(f"{path}/{_user(label)}?limit=3{query}").json(), Recommendations)


def test_every_personal_answer_has_its_own_id_and_no_variant_without_an_experiment(
    api: Client,
) -> None:
    answers = [
        api.get(f"{FOR_DEVELOPER}/{user}").json() for user in ("warm", "warm", "cold", "nobody")
    ]
    assert len({answer["recommendation_id"] for answer in answers}) == 4
    assert all(re.fullmatch("[0-9a-f]{16}", answer["recommendation_id"]) for answer in answers)
    assert {answer["variant"] for answer in answers} == {None}


@pytest.mark.parametrize(
    ("label", "method"),
    [
        ("colder.control", "als"),
        ("colder.colder", "content_based"),
        ("startups.control", "als"),
        ("startups.popular", "content_based"),
        (None, "als"),
    ],
)
def test_a_user_is_answered_by_the_variant_that_the_answer_names(
    running: Client, label: str | None, method: str
) -> None:
    answer = _answer(running, label)
    assert (answer.variant, answer.method_used) == (label, method)
    shown_by = EXPERIMENTS.variant_of_answer(answer.recommendation_id, _user(label))
    assert (shown_by and shown_by.label) == label
    user = running.get(f"/api/users/{_user(label)}").json()
    if label == "colder.colder":
        assert (user["engine"], user["why"]) == (
            "content_based",
            "7 interactions: content_based < 10 <= als < 20 <= ensemble (ROUTER=fixed)",
        )


def test_explain_is_about_the_answer_that_the_user_gets(running: Client) -> None:
    for label in ("colder.control", "colder.colder"):
        user, best = _user(label), _answer(running, label).recommendations[0]
        explanation = checked(
            running.get(
                f"/api/explain/{user}/{best.item_id}?limit=3&use_case=developer_startup"
            ).json(),
            Explanation,
        )
        assert (
            explanation.variant,
            explanation.method_used,
            explanation.shown,
            explanation.rank,
        ) == (
            label,
            best.method,
            True,
            1,
        )


def test_a_request_for_an_engine_or_another_use_case_is_in_no_experiment(
    running: Client,
) -> None:
    assert _answer(running, "colder.colder", query="&engine=als").variant is None
    assert _answer(running, "startups.popular", path="/api/recommendations").variant is None
    assert _answer(
        running,
        "startups.popular",
        path="/api/recommendations",
        query="&use_case=developer_startup",
    ).variant
    assert _answer(running, "colder.colder", path="/api/recommendations").variant == "colder.colder"


def test_exposures_are_recorded_by_user_within_a_refresh(running: Client, redis: Redis) -> None:
    for label in ("colder.control", "colder.colder", "colder.colder", None):
        _answer(running, label)
    _answer(running, "colder.colder", query="&engine=als")
    control, colder = EXPERIMENTS.all[0].variants
    eventually(
        lambda: store.read([redis], colder.id).exposed == {_user("colder.colder"): 2},
        "both answers noted",
    )
    assert store.read([redis], control.id).exposed == {_user("colder.control"): 1}
    assert len(redis.keys("experiment:*:exposed")) == 2


def test_the_last_exposures_are_recorded_when_the_process_ends(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    path = tmp_path / "experiments.toml"
    path.write_text(TOML)
    with serving(settings, experiments_path=path, refresh_s=600.0) as api:
        _answer(api, "colder.control")
    assert store.read([redis], EXPERIMENTS.all[0].variants[0].id).exposed == {
        _user("colder.control"): 1
    }


def test_a_new_bundle_reaches_every_variant(running: Client, settings: Settings) -> None:
    version = publish(settings)
    eventually(lambda: _answer(running, None).model_version == version, "the new bundle is live")
    for variant in EXPERIMENTS.by_id.values():
        assert _answer(running, variant.label).model_version == version


def test_while_redis_is_away_no_user_is_in_an_experiment(running: Client, redis: Redis) -> None:
    user = _user("colder.colder")
    redis.delete(f"user:{user}")
    redis.set(f"user:{user}", "no hash")  # cannot be read
    answer = _answer(running, "colder.colder")
    assert (answer.variant, answer.degraded) == (None, True)


def test_an_invalid_experiment_stops_the_start(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "experiments.toml"
    path.write_text("[experiments.blend]\nusers = [0.0, 2.0]\nvariants = {}\n")
    with (
        pytest.raises(ConfigurationError, match=r"experiments\.blend"),
        serving(settings, experiments_path=path),
    ):
        pass


def test_an_answer_of_a_variant_is_complete(running: Client) -> None:
    assert len(shown(running.get(f"{FOR_DEVELOPER}/{_user('startups.popular')}?limit=3"))) == 3
