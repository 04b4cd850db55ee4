"""What a browser needs: CORS for pages of other origins, and compressed answers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from core.settings import Settings
from tests.api.world import publish, serving

SHOP = "https://shop.example"


def test_a_page_of_a_configured_origin_may_call_the_api(settings: Settings, redis: object) -> None:
    with serving(settings, api_cors_origins=(SHOP,)) as client:
        preflight = client.request(
            "OPTIONS",
            "/api/events",
            headers={
                "origin": SHOP,
                "access-control-request-method": "POST",
                "access-control-request-headers": "content-type,x-api-key",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == SHOP
        assert "x-api-key" in preflight.headers["access-control-allow-headers"]
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            preflight_headers = {"origin": SHOP, "access-control-request-method": method}
            assert client.request("OPTIONS", "/api/items/x", headers=preflight_headers).is_success
        for path, status in (("/api/popular", 200), ("/nothing", 404)):
            answer = client.get(path, headers={"origin": SHOP})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == SHOP
        refused = client.request("POST", "/api/events", headers={"origin": SHOP})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == SHOP, "the page reads the error"
        other = client.get("/api/popular", headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers
        assert client.request("OPTIONS", "/api/events").headers["allow"] == "OPTIONS, POST"


def test_without_origins_no_page_of_another_origin_may(settings: Settings, redis: object) -> None:
    with serving(settings) as client:
        answer = client.get("/api/popular", headers={"origin": SHOP})
    assert "access-control-allow-origin" not in answer.headers


def test_large_answers_are_compressed_for_a_client_that_accepts_it(
    settings: Settings, redis: object
) -> None:
    publish(settings)
    with serving(settings) as client:
        document = client.get("/openapi.json")
        assert document.headers["content-encoding"] == "gzip"
        plain = client.get("/openapi.json", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert document.json() == plain.json()
        assert int(document.headers["content-length"]) < int(plain.headers["content-length"]) / 3
        head = client.request("HEAD", "/openapi.json")
        assert head.headers["content-length"] == document.headers["content-length"]
        assert head.content == b""
        small = client.get("/api/popular?limit=3")
        assert "content-encoding" not in small.headers
    with serving(settings, api_gzip_bytes=0) as client:
        assert "content-encoding" not in client.get("/openapi.json").headers


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_cors_origins", "shop.example"),
        ("api_cors_origins", "https://shop.example/page"),
        ("api_root_path", "/re co"),
        ("api_root_path", "https://x/reco"),
    ],
)
def test_a_malformed_origin_or_prefix_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        Settings(_env_file=None, **{name: value})


def test_origins_and_prefix_are_read_as_people_write_them() -> None:
    settings = Settings(
        _env_file=None, api_cors_origins=f" {SHOP}, http://localhost:3000 ", api_root_path="reco/"
    )
    assert settings.api_cors_origins == (SHOP, "http://localhost:3000")
    assert settings.api_root_path == "/reco"
