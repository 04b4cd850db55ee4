"""Keys, limits on bodies and paths, and the shape of errors."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import Any

import pytest

from api.middleware.auth import Keys
from core.settings import Settings
from tests.api.world import KEY, Client, serving

WRITES = [
    ("POST", "/api/events"),
    ("PUT", "/api/items/x"),
    ("DELETE", "/api/items/x"),
    ("PUT", "/api/users/x"),
    ("DELETE", "/api/users/x"),
]


@pytest.fixture
def api(settings: Settings, redis: object) -> Iterator[Client]:
    with serving(settings, api_max_body_bytes=2048) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_writes_need_one_of_the_keys(api: Client, method: str, path: str) -> None:
    for headers in (
        {},
        {"x-api-key": "wrong"},
        {"x-api-key": ""},
        {"x-api-key": KEY + "x"},
        {"x-api-key": KEY[:-1]},
        {"authorization": "Bearer wrong"},
        {"authorization": KEY},
        {"authorization": f"Basic {KEY}"},
    ):
        answer = api.request(method, path, headers=headers, content=b"{")
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
    for headers in (
        {"x-api-key": KEY},
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
    ):
        if method != "DELETE":  # with the key, it is the body that is looked at
            assert api.request(method, path, headers=headers, content=b"{").status_code == 400


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_without_keys_writes_are_off_and_the_error_names_the_setting(
    settings: Settings, redis: object, method: str, path: str
) -> None:
    with serving(settings, api_keys="") as client:
        answer = client.request(method, path, headers={"x-api-key": ""})
        assert (answer.status_code, answer.json()["error"]) == (403, "writes_disabled")
        assert "API_KEYS" in answer.json()["detail"]
        assert client.get("/api/popular").status_code == 200


def test_reads_are_open_unless_read_keys_are_set(
    settings: Settings, redis: object, api: Client
) -> None:
    assert api.get("/api/popular").status_code == 200
    with serving(settings, api_read_keys="reader-1,reader-2") as keyed:
        for path in (
            "/api/popular",
            "/api/recommendations/42",
            "/api/users/42",
            "/api/explain/1/2",
            "/api/items/1/similar",
            "/%61pi/popular",
        ):
            assert keyed.get(path).status_code == 401
        for key in ("reader-1", "reader-2", KEY):
            assert keyed.get("/api/popular", headers={"x-api-key": key}).status_code == 200
        assert (
            keyed.request("DELETE", "/api/users/1", headers={"x-api-key": "reader-1"}).status_code
            == 401
        )
        for path in ("/health/live", "/metrics", "/openapi.json", "/docs"):
            assert keyed.get(path).status_code == 200


def test_a_key_is_compared_with_every_key_and_by_digest_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def counting(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return real(left, right)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", counting)
    keys = Keys(["first", "second", "third-and-much-longer"])
    for presented, accepted in (
        (b"first", True),
        (b"third-and-much-longer", True),
        (b"nothing", False),
        (b"", False),
        (b"\xff\x00", False),
    ):
        compared.clear()
        assert keys.accepts(presented) is accepted
        assert len(compared) == 3, "no early exit"
        assert {len(side) for pair in compared for side in pair} == {32}, (
            "the length of a key does not show"
        )


def test_a_body_over_the_limit_is_a_413_with_and_without_a_content_length(api: Client) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b"[" + b" " * 1000] * 3

    async def endless() -> Any:
        for chunk in chunks():
            yield chunk

    for body in (b"[" + b" " * 3000, endless()):
        answer = api.request("POST", "/api/events", headers={"x-api-key": KEY}, content=body)
        assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")
    assert (
        api.request("GET", "/api/popular", headers={"content-length": "99999"}).status_code == 413
    )
    for nonsense in ("-1", "1e3", "9" * 40):
        assert (
            api.request(
                "POST", "/api/events", headers={"x-api-key": KEY, "content-length": nonsense}
            ).status_code
            == 413
        )


def test_a_query_or_a_path_over_the_limit_is_a_414(api: Client) -> None:
    assert api.get("/api/popular?exclude=" + "x" * 20_000).status_code == 414
    assert api.get("/api/users/" + "x" * 5_000).status_code == 414


def test_errors_have_one_shape(api: Client) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/api/users/a/b", 404),
        ("POST", "/api/popular", 401),
        ("PATCH", "/health/live", 405),
        ("GET", "/api/users/", 404),
        ("GET", "/api//users/1", 404),
        ("GET", "/api/popular?x=1", 422),
    ):
        answer = api.request(method, path)
        assert (answer.status_code, set(answer.json())) == (status, {"error", "detail"}), path
        assert answer.headers["content-type"] == "application/json"


def test_head_is_answered_as_get_without_a_body_and_options_with_the_methods(api: Client) -> None:
    for path in (
        "/health/live",
        "/health/ready",
        "/metrics",
        "/api/popular",
        "/api/users/1",
        "/openapi.json",
        "/docs",
    ):
        get, head = api.get(path), api.request("HEAD", path)
        assert (head.status_code, head.content, head.headers["content-type"]) == (
            get.status_code,
            b"",
            get.headers["content-type"],
        )
        if path not in ("/metrics", "/health/ready"):  # these change between two requests
            assert head.headers["content-length"] == get.headers["content-length"]
    for path, methods in (
        ("/health/live", "GET, HEAD, OPTIONS"),
        ("/health/ready", "GET, HEAD, OPTIONS"),
        ("/api/users/1", "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("/api/events", "OPTIONS, POST"),
    ):
        answer = api.request("OPTIONS", path)
        assert (answer.status_code, answer.headers["allow"], answer.content) == (204, methods, b"")
        refused = api.write("TRACE", path)
        assert (refused.status_code, refused.headers["allow"], refused.json()["error"]) == (
            405,
            methods,
            "method_not_allowed",
        )
    assert api.request("HEAD", "/api/events").status_code == 405
    assert api.request("OPTIONS", "/nothing").status_code == 404


def test_a_request_that_takes_too_long_is_a_503(
    settings: Settings, redis: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        import asyncio

        await asyncio.Event().wait()

    with serving(settings, api_timeout_s=0.2) as client:
        monkeypatch.setattr(client.app.state.service, "user_state", never)
        answer = client.get("/api/recommendations/42")
        assert (answer.status_code, answer.json()["error"]) == (503, "timeout")


def test_a_defect_is_a_500_without_details_and_the_next_request_works(
    settings: Settings, redis: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    with serving(settings) as client:
        with monkeypatch.context() as patch:
            patch.setattr(client.app.state.service, "user_state", broken)
            answer = client.get("/api/recommendations/42")
            assert (answer.status_code, answer.json()["error"]) == (500, "internal")
            assert "secret" not in answer.text
        assert client.get("/api/recommendations/42").status_code == 200
