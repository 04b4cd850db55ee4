"""Results of experiments over HTTP: the numbers of Redis with their intervals and a verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis

from api.schemas.experiments import ExperimentResults
from core.codec import encode_json
from core.experiments import Variant
from core.settings import Settings
from store.state import keys
from store.state.apply import counted_settings
from tests.api.world import checked, serving
from tests.store.state.entities.experiment import CONTROL, HALF, TOML
from tests.support import eventually
from training.evaluation.experiments import reports


def record(redis: Redis, variant: Variant, users: int, converted: int) -> None:
    """Exposures of `users` users, of whom `converted` have an outcome."""
    names = [f"{variant.name}-{number}" for number in range(users)]
    redis.zadd(keys.ONLY.experiment_exposed(variant.id), dict.fromkeys(names, 2.0))
    redis.zadd(keys.ONLY.experiment_outcomes(variant.id), dict.fromkeys(names[:converted], 1.0))


@pytest.fixture
def running(settings: Settings, tmp_path: Path) -> Settings:
    path = tmp_path / "experiments.toml"
    path.write_text(TOML)
    return settings.model_copy(update={"experiments_path": path})


def test_the_results_name_users_outcomes_intervals_and_a_verdict(
    running: Settings, redis: Redis
) -> None:
    record(redis, CONTROL, 200, 20)
    record(redis, HALF, 200, 80)
    with serving(running) as client:
        answer = checked(client.get("/api/experiments?detect=2").json(), ExperimentResults)
        assert (
            client.get("/api/experiments").json()["experiments"][0]["variants"][1]["verdict"]
            == "early"
        ), "a tenth more needs more users"
    (blend,) = answer.experiments
    control, half = blend.variants
    assert (blend.experiment, blend.configured, control.verdict) == ("blend", True, "control")
    assert (control.exposed_users, control.answers, control.users_with_outcome) == (200, 400, 20)
    assert half.verdict == "better"
    assert half.difference is not None
    assert 0 < half.difference.low < 0.3 < half.difference.high
    assert encode_json([blend]) == encode_json(reports(running, 2.0)), "as the command says"


def test_results_are_cached_and_say_when_they_were_read(running: Settings, redis: Redis) -> None:
    with serving(running) as client:

        def users() -> tuple[float, int]:
            answer = checked(client.get("/api/experiments").json(), ExperimentResults)
            return answer.at, answer.experiments[0].variants[0].exposed_users

        first = users()
        record(redis, CONTROL, 3, 1)
        assert users() == first == (first[0], 0)


def test_without_experiments_there_are_none(settings: Settings, redis: Redis) -> None:
    with serving(settings) as client:
        assert client.get("/api/experiments").json()["experiments"] == []
        assert client.get("/api/experiments?detect=0").status_code == 422
        assert client.get("/api/experiments?detect=often").status_code == 422


def test_without_redis_the_answer_says_so(running: Settings, own_redis_server: object) -> None:
    with serving(running) as client:
        own_redis_server.stop()  # type: ignore[attr-defined]
        eventually(
            lambda: client.get("/api/experiments").status_code == 503, "the numbers are away"
        )


def test_numbers_of_another_number_of_shards_are_named_and_not_shown_as_none(
    running: Settings, redis: Redis
) -> None:
    counted_settings.check(redis, running)
    with serving(running, redis_shards=4) as client:
        answer = client.get("/api/experiments")
        assert (answer.status_code, answer.json()["error"]) == (503, "store_unavailable")
        assert "state of REDIS_SHARDS=1" in answer.json()["detail"]
