"""Similar users: which are listed, which are left out, and what happens without users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from redis import Redis

from api.schemas.answers import SimilarUsers
from core.settings import Settings
from models.als.trained_users import TrainedUsers
from models.id_map import IdMap
from store.state import keys
from tests.api.trained_users import PEOPLE, publish_users
from tests.api.world import Client, checked, remember, serving


@pytest.fixture
def api(settings: Settings, redis: Redis) -> Iterator[Client]:
    publish_users(settings, PEOPLE)
    for name in PEOPLE:
        remember(redis, name, "bank", "pay")
    remember(redis, "me", "coin", "pay")
    remember(redis, "medic", "pill")
    with serving(settings) as client:
        yield client


def similar(api: Client, user_id: str, query: str = "") -> SimilarUsers:
    return checked(api.get(f"/api/users/{user_id}/similar{query}").json(), SimilarUsers)


def test_the_nearest_users_come_first_with_the_shared_items(api: Client) -> None:
    answer = similar(api, "me")
    assert [user.user_id for user in answer.users] == ["fin", "fin-too", "both"], (
        "without users of the opposite vector or of a zero vector"
    )
    assert [user.rank for user in answer.users] == [1, 2, 3]
    assert 1 > answer.users[0].score > 0.95 > answer.users[2].score > 0
    assert answer.users[0].shared_items == ["pay"]
    assert (answer.cause, answer.interaction_count) == (None, 2)
    assert similar(api, "medic").users[0].user_id == "health"


def test_the_limit_is_obeyed_and_the_user_is_left_out(api: Client) -> None:
    assert [user.user_id for user in similar(api, "fin", "?limit=1").users] == ["fin-too"]
    assert api.get("/api/users/me/similar?limit=51").status_code == 422
    assert api.get("/api/users/me/similar?engine=als").status_code == 422


def test_users_deleted_since_the_training_are_left_out(api: Client, redis: Redis) -> None:
    redis.delete(*keys.ONLY.all_of_user("fin"))
    assert [user.user_id for user in similar(api, "me").users] == ["fin-too", "both"]


def test_a_user_without_history_gets_the_cause(api: Client) -> None:
    answer = similar(api, "stranger")
    assert (answer.users, answer.cause) == ([], "the user has no history")


def test_a_bundle_without_users_is_named_and_the_next_bundle_is_loaded(
    settings: Settings, redis: Redis
) -> None:
    remember(redis, "me", "pay")
    remember(redis, "newcomer", "pay")
    publish_users(settings, None)
    with serving(settings) as api:
        assert "als_user_mapping.json" in (similar(api, "me").cause or "")
        version = publish_users(settings, {"newcomer": (1.0, 0.0)})
        api.app.state.service.view.refresh()
        answer = similar(api, "me")
    assert ([user.user_id for user in answer.users], answer.model_version) == (
        ["newcomer"],
        version,
    )


def test_comparing_users_in_blocks_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    factors = random.normal(size=(1000, 8)).astype(np.float32)
    vector = random.normal(size=8).astype(np.float32)
    cosines = factors @ vector / np.linalg.norm(factors, axis=1) / np.linalg.norm(vector)
    monkeypatch.setattr("models.als.trained_users.BLOCK_USERS", 64)
    nearest = TrainedUsers(IdMap([str(row) for row in range(1000)]), factors).nearest(vector, 20)
    assert [int(user) for user, _ in nearest] == np.argsort(-cosines)[:20].tolist()
    assert [cosine for _, cosine in nearest] == pytest.approx(
        np.sort(cosines)[::-1][:20].tolist(), abs=1e-5
    )
