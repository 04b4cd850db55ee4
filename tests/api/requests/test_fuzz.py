"""No path, query, user id or body makes the API answer 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.settings import Settings
from tests.api.world import FOR_DEVELOPER, KEY, Client, publish, serving


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory, redis_server: Any) -> Iterator[Client]:
    from pydantic import SecretStr

    folder = tmp_path_factory.mktemp("fuzz")
    settings = Settings(
        redis_url=SecretStr(redis_server.url),
        kafka_bootstrap_servers="127.0.0.1:9",
        models_path=folder,
        api_port=0,
    )
    publish(settings)
    with serving(settings, api_timeout_s=1.0) as client:
        yield client


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SECTIONS = st.sampled_from(
    [
        "api",
        "recommendations",
        "startups",
        "for-developer",
        "items",
        "users",
        "explain",
        "similar",
        "preview",
        "activity",
        "experiments",
        "popular",
        "events",
        "health",
        "ready",
    ]
)
PARAMETERS = st.sampled_from(
    [
        "limit",
        "category",
        "item_type",
        "exclude",
        "include_seen",
        "available_only",
        "engine",
        "use_case",
        "attr.stage",
        "attr.founded.min",
        "attr.founded.max",
        "attr.",
        "attr.min",
        "attr..min",
        "event",
        "without",
    ]
)
fuzz = hypothesis_settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@fuzz
@given(
    path=st.lists(SECTIONS | texts, min_size=1, max_size=6),
    query=st.lists(st.tuples(PARAMETERS | texts, texts), max_size=5),
)
def test_no_path_or_query_gives_a_500(
    fuzzed: Client, path: list[str], query: list[tuple[str, str]]
) -> None:
    from urllib.parse import quote

    url = (
        "/"
        + "/".join(quote(part, safe="") for part in path)
        + "?"
        + "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in query)
    )
    assume(not url.startswith("//"))  # that would be a host, and the client refuses it
    assert fuzzed.get(url).status_code in (
        200,
        404,
        405,
        414,
        422,
        503 if url.startswith("/health/ready") else 200,
    )


@fuzz
@given(
    user=texts.filter(bool),
    query=st.lists(
        st.tuples(
            PARAMETERS,
            st.sampled_from(
                ["", "1", "als", "true", "seed,a", "x", "-1", "1e309", "nan", "like:pay", "like:"]
            )
            | texts,
        ),
        max_size=4,
    ),
)
def test_no_user_and_no_filter_gives_a_500(
    fuzzed: Client, user: str, query: list[tuple[str, str]]
) -> None:
    from urllib.parse import quote

    tail = f"{quote(user, safe='')}?" + "&".join(
        f"{name}={quote(value, safe='')}" for name, value in query
    )
    for path in (
        f"{FOR_DEVELOPER}/{tail}",
        f"/api/recommendations/{tail}",
        f"/api/explain/{quote(user, safe='')}/{tail}",
        f"/api/preview/{tail}",
    ):
        answer = fuzzed.get(path)
        # 404: `.` and `..` are folded by the client
        assert answer.status_code in (200, 404, 422), answer.text
        assert answer.status_code != 200 or answer.json()["user_id"] == user


@fuzz
@given(text=texts, cursor=texts, limit=texts)
def test_no_search_gives_a_500(fuzzed: Client, text: str, cursor: str, limit: str) -> None:
    for path in ("/api/items", "/api/users", "/api/experiments"):
        for query in ({"q": text}, {"q": text, "limit": limit}, {"cursor": cursor}):
            assert fuzzed.get(path, params=query).status_code in (200, 422), (path, query)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


@fuzz
@given(
    method_path=st.sampled_from(
        [("POST", "/api/events"), ("PUT", "/api/items/x"), ("PUT", "/api/users/x")]
    ),
    body=JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60),
)
def test_no_body_gives_a_500(fuzzed: Client, method_path: tuple[str, str], body: bytes) -> None:
    answer = fuzzed.request(*method_path, content=body, headers={"x-api-key": KEY})
    assert answer.status_code in (400, 422) or (answer.status_code, answer.json()["error"]) == (
        503,
        "log_unavailable",
    ), answer.text
