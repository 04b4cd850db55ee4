"""Models over HTTP: lists, manifests, promotion, retrain requests."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from redis import Redis

from api.schemas.models import Difference, Model, Models, Promoted, RetrainRequested
from core.settings import Settings
from models.registry import Registry
from models.router.thresholds import PreferredThresholds
from store.log import retrain_requests
from store.log.retrain_requests import Requests
from store.state import keys, retrains
from tests.api.world import KEY, Client, checked, publish, remember, serving
from tests.support import eventually

ADMIN = "an-admins-key"
HEADERS = {"x-api-key": ADMIN}
WRITES = ["/api/models/2026-01-01T00-00-00Z/promote", "/api/models/rollback", "/api/models/retrain"]


PREFERRED = PreferredThresholds(
    preferred=(1, 3), configured=(5, 20), gain=0.4, low=0.31, high=0.48, users=250
)


@pytest.fixture
def versions(settings: Settings) -> list[str]:
    return [publish(settings) for _ in range(3)]


@pytest.fixture
def admin(settings: Settings, redis: Redis, versions: list[str]) -> Iterator[Client]:
    with serving(settings, api_admin_keys=ADMIN) as client:
        yield client


@pytest.mark.parametrize("path", WRITES)
def test_only_an_admin_key_changes_the_live_model(
    settings: Settings, redis: Redis, versions: list[str], admin: Client, path: str
) -> None:
    for headers, status, word in (
        ({}, 401, "unauthorized"),
        ({"x-api-key": "wrong"}, 401, "unauthorized"),
        ({"x-api-key": KEY}, 403, "forbidden"),
        ({"authorization": f"Bearer {KEY}"}, 403, "forbidden"),
    ):
        answer = admin.request("POST", path, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (status, word)
        assert "API_ADMIN_KEYS" in answer.json()["detail"]
    assert admin.request("POST", "/api/events", headers=HEADERS).status_code == 401, (
        "nor does an admin's key write events"
    )
    assert Registry(settings.models_path).current() == versions[-1]
    with serving(settings) as without:
        for headers in ({}, {"x-api-key": ""}, {"x-api-key": KEY}):
            answer = without.request("POST", path, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (403, "admin_disabled")


def test_the_versions_are_listed_newest_first_and_the_live_one_is_marked(
    admin: Client, versions: list[str]
) -> None:
    answer = admin.get("/api/models").json()
    checked(answer, Models)
    assert [summary["version"] for summary in answer["versions"]] == versions[::-1]
    assert [summary["live"] for summary in answer["versions"]] == [True, False, False]
    assert (answer["live"], answer["serving"], answer["retrain"]) == (
        versions[2],
        versions[2],
        None,
    )
    assert answer["versions"][0]["parts"] == ["als", "content", "popular"]


def test_the_list_says_what_users_get_and_which_thresholds_apply(
    settings: Settings, redis: Redis
) -> None:
    version = publish(settings, thresholds=PREFERRED)
    remember(redis, "42", "startup-1", "startup-2")
    fixed = {"mode": "fixed", "cold_start_threshold": 5, "warm_user_threshold": 20}
    automatic = {"mode": "auto", "cold_start_threshold": 1, "warm_user_threshold": 3}
    for router, why in ((fixed, "ROUTER=fixed"), (automatic, "ROUTER=auto: +40.0% NDCG@10 ")):
        with serving(settings, router=router["mode"]) as client:
            answer = client.get("/api/models").json()
            checked(answer, Models)
            assert answer["router"] == {**router, "why": answer["router"]["why"]}
            assert answer["router"]["why"].startswith(why)
            assert answer["serving"] == version
            assert answer["summary"] == answer["versions"][0]["summary"]
            assert answer["summary"].startswith("Warm users get NDCG@10 .0")
            assert why in client.get("/api/users/42").json()["why"]
            assert why in client.get("/api/explain/42/startup-1").json()["routing"]


def test_promote_and_roll_back_go_live_without_a_restart(
    settings: Settings, redis: Redis, admin: Client, versions: list[str]
) -> None:
    def made_live(path: str, live: str, was: str) -> None:
        answer = admin.request("POST", path, headers=HEADERS)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"live": live, "was": was}
        checked(answer.json(), Promoted)
        assert redis.get(keys.ONLY.model_current) == live.encode()
        eventually(
            lambda: admin.get("/api/models").json()["serving"] == live, "this process serves it"
        )
        assert admin.get("/api/recommendations/42").json()["model_version"] == live

    made_live(f"/api/models/{versions[0]}/promote", versions[0], versions[2])
    made_live("/api/models/rollback", versions[2], versions[0])


def test_promoting_a_damaged_or_missing_version_is_refused_and_the_live_one_stays(
    settings: Settings, admin: Client, versions: list[str]
) -> None:
    (settings.models_path / versions[0] / "als" / "item_factors.npy").write_bytes(b"other")
    for path, status, word in (
        (f"/api/models/{versions[0]}/promote", 409, "model_corrupt"),
        ("/api/models/2020-01-01T00-00-00Z/promote", 404, "no_such_version"),
        ("/api/models/..%2F..%2Fetc/promote", 404, "no_such_version"),
    ):
        answer = admin.request("POST", path, headers=HEADERS)
        assert (answer.status_code, answer.json()["error"]) == (status, word), path
    (settings.models_path / "current").write_text(versions[2] + "\n")
    answer = admin.request("POST", "/api/models/rollback", headers=HEADERS)
    assert (answer.status_code, answer.json()["error"]) == (409, "no_version_before")
    assert Registry(settings.models_path).current() == versions[2]


def test_a_manifest_and_a_difference_are_shown(admin: Client, versions: list[str]) -> None:
    shown = admin.get(f"/api/models/{versions[0]}").json()
    checked(shown, Model)
    assert (shown["manifest"]["version"], shown["live"]) == (versions[0], False)
    different = admin.get(f"/api/models/{versions[0]}/diff/{versions[1]}").json()
    checked(different, Difference)
    assert different["differences"]["version"] == versions[:2]
    for path in ("/api/models/nothing", f"/api/models/{versions[0]}/diff/nothing"):
        assert (admin.get(path).status_code, admin.get(path).json()["error"]) == (
            404,
            "no_such_version",
        )


def test_a_manifest_that_cannot_be_read_does_not_hide_the_others(
    settings: Settings, admin: Client, versions: list[str]
) -> None:
    (settings.models_path / versions[0] / "manifest.json").write_text("{")
    oldest = admin.get("/api/models").json()["versions"][2]
    assert oldest["version"] == versions[0]
    assert "manifest.json" in oldest["problem"]


def test_the_progress_and_the_result_of_a_retrain_are_shown(admin: Client, redis: Redis) -> None:
    fields = {
        "status": "running",
        "step": "fit",
        "progress": "sweep 3 of 20",
        "holder": "host:1:x",
        "seconds": "4.5",
        "requested_by": "me",
    }
    retrains.record(redis, {**fields, "started": "then", "at": "now", "answers": "{}"})
    redis.set(keys.ONLY.lease(retrains.LEASE), "host:1:x")
    answer = admin.get("/api/models").json()
    checked(answer, Models)
    assert {name: answer["retrain"][name] for name in ("status", "progress", "seconds")} == {
        "status": "running",
        "progress": "sweep 3 of 20",
        "seconds": 4.5,
    }
    redis.delete(keys.ONLY.lease(retrains.LEASE))
    assert admin.get("/api/models").json()["retrain"]["status"] == "died", (
        "its status is running, but it has no lease"
    )
    retrains.record(redis, {**fields, "status": "refused", "error": "worse by more than 5%"})
    assert admin.get("/api/models").json()["retrain"]["error"] == "worse by more than 5%"


def test_without_redis_the_versions_are_still_listed(
    settings: Settings, redis: Redis, versions: list[str]
) -> None:
    with serving(
        settings, redis_url=SecretStr("redis://127.0.0.1:1/0"), api_admin_keys=ADMIN
    ) as client:
        answer = client.get("/api/models").json()
        assert (answer["live"], answer["retrain"], answer["degraded"]) == (versions[2], None, True)
        answer = client.request("POST", "/api/models/rollback", headers=HEADERS)
        assert answer.json() == {"live": versions[1], "was": versions[2]}


def test_without_write_access_to_the_models_a_promotion_is_a_503(
    settings: Settings, redis: Redis, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Registry, "_point", read_only)
    answer = admin.request("POST", "/api/models/rollback", headers=HEADERS)
    assert (answer.status_code, answer.json()["error"]) == (503, "models_unavailable")
    assert "Read-only file system" in answer.json()["detail"]


def test_a_retrain_request_is_in_the_log(
    settings: Settings, redis: Redis, broker: object, versions: list[str]
) -> None:
    with serving(settings, api_admin_keys=ADMIN) as client:
        eventually(lambda: not client.get("/health/ready").json()["degraded"], "Kafka is there")
        answer = client.request(
            "POST", "/api/models/retrain", headers=HEADERS, json={"reason": "new catalogue"}
        )
        assert answer.status_code == 202, answer.text
        checked(answer.json(), RetrainRequested)
        assert client.request("POST", "/api/models/retrain", headers=HEADERS).status_code == 202, (
            "the body may be left out"
        )
        for body, status in (
            (b"{", 400),
            (b"\xff", 400),
            (b"[]", 422),
            (b'{"force":true}', 422),
            (json.dumps({"reason": "x" * 501}), 422),
        ):
            assert (
                client.request(
                    "POST", "/api/models/retrain", headers=HEADERS, content=body
                ).status_code
                == status
            )
    topic, partition, offset = answer.json()["token"].split(":")
    assert topic == settings.retrain_requests_topic
    with Requests(settings) as requests:
        request = eventually(lambda: requests.next(0.2), "the request is in the log")
        assert (request.partition, request.offset) == (int(partition), int(offset))
        assert retrain_requests.decode(request.value).reason == "new catalogue"
        assert sum(requests.ends().values()) == 2


def test_without_a_broker_a_retrain_request_is_a_503(admin: Client) -> None:
    answer = admin.request("POST", "/api/models/retrain", headers=HEADERS)
    assert (answer.status_code, answer.json()["error"]) == (503, "log_unavailable")


def test_reads_of_models_obey_the_read_keys(
    settings: Settings, redis: Redis, versions: list[str]
) -> None:
    with serving(settings, api_read_keys="reader", api_admin_keys=ADMIN) as client:
        assert client.get("/api/models").status_code == 401
        for key in ("reader", KEY, ADMIN):
            assert client.get("/api/models", headers={"x-api-key": key}).status_code == 200
