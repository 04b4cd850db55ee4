"""The OpenAPI document names every route, parameter and example; metrics count answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.routing import APIRoute
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from core.settings import Settings
from tests.api.world import FOR_DEVELOPER, publish, serving

ROUTES = {
    ("GET", "/api/recommendations/{item_type}/for-{role}/{user_id}"),
    ("GET", "/api/recommendations/{user_id}"),
    ("GET", "/api/items/{item_id}/similar"),
    ("GET", "/api/popular"),
    ("GET", "/api/explain/{user_id}/{item_id}"),
    ("GET", "/api/preview/{user_id}"),
    ("GET", "/api/items/{item_id}/activity"),
    ("GET", "/api/items/{item_id}/users"),
    ("GET", "/api/users"),
    ("GET", "/api/experiments"),
    ("GET", "/api/dead-letters"),
    ("GET", "/api/dead-letters/{place}"),
    ("POST", "/api/dead-letters/{place}/replay"),
    ("POST", "/api/events"),
    ("GET", "/api/items"),
    ("POST", "/api/items"),
    ("POST", "/api/users"),
    ("GET", "/api/items/{item_id}"),
    ("PATCH", "/api/items/{item_id}"),
    ("PATCH", "/api/users/{user_id}"),
    ("PUT", "/api/items/{item_id}"),
    ("DELETE", "/api/items/{item_id}"),
    ("PUT", "/api/users/{user_id}"),
    ("DELETE", "/api/users/{user_id}"),
    ("GET", "/api/users/{user_id}"),
    ("GET", "/api/users/{user_id}/similar"),
    ("GET", "/api/models"),
    ("GET", "/api/models/{version}"),
    ("GET", "/api/models/{a}/diff/{b}"),
    ("POST", "/api/models/{version}/promote"),
    ("POST", "/api/models/rollback"),
    ("POST", "/api/models/retrain"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/metrics"),
}


@pytest.fixture
def page(settings: Settings) -> dict[str, Any]:
    return create_app(settings).openapi()


def test_every_route_is_documented_with_summary_text_and_example(
    settings: Settings, page: dict[str, Any]
) -> None:
    app = create_app(settings)
    assert {
        (method, route.path)
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    } == ROUTES
    for method, path in ROUTES:
        operation = page["paths"][path][method.lower()]
        assert operation["summary"]
        assert len(operation["description"]) > 20
        assert {
            name.strip("{}") for name in path.replace("for-", "").split("/") if name.startswith("{")
        } == {
            parameter["name"]
            for parameter in operation.get("parameters", [])
            if parameter["in"] == "path"
        }
        assert all(parameter["description"] for parameter in operation.get("parameters", []))
        assert all(
            "example" in parameter
            for parameter in operation.get("parameters", [])
            if parameter["in"] == "path"
        )
        if method in ("POST", "PUT") and not path.endswith(("/promote", "/rollback")):
            content = operation["requestBody"]["content"]["application/json"]
            assert content.get("example") or content["examples"]
        success = next(code for code in operation["responses"] if code.startswith("2"))
        assert operation["responses"][success]["content"], path
    json.dumps(page)


def test_every_documented_query_parameter_works(
    settings: Settings, redis: object, page: dict[str, Any]
) -> None:
    values = {
        "limit": "3",
        "category": "a",
        "item_type": "startup",
        "exclude": "x",
        "include_seen": "true",
        "available_only": "false",
        "engine": "als",
        "use_case": "developer_startup",
        "reasons": "false",
        "after": f"{settings.interactions_topic}:0:0",
        "window": "day",
        "diversity": "0.3",
        "explore": "0.1",
        "attr": None,
        "user_id": "42",
        "item_id": "pay",
        "cursor": "0",
        "q": "a",
        "event": "like:pay",
        "without": "pay",
        "detect": "0.2",
    }
    publish(settings)
    with serving(settings, api_after_s=0.01) as client:
        for method, path in ROUTES:
            if path.startswith("/api/dead-letters"):  # they need a broker and an admin's key
                continue
            for parameter in page["paths"][path][method.lower()].get("parameters", []):
                if parameter["in"] == "query" and method == "GET":
                    query = (
                        "attr.stage=seed"
                        if parameter["name"] == "attr"
                        else f"{parameter['name']}={values[parameter['name']]}"
                    )
                    if path == "/api/users" and parameter["name"] != "q":  # q is required there
                        query += "&q=a"
                    ids = {"user_id": "42", "item_id": "pay"}
                    if parameter["name"] in ids:
                        ids[parameter["name"]] = "-"
                    url = path.format(item_type="startups", role="developer", **ids)
                    assert client.get(f"{url}?{query}").status_code == 200, (path, query)


def test_the_documented_examples_are_accepted(
    settings: Settings, redis: object, broker: object, page: dict[str, Any]
) -> None:
    with serving(settings) as client:
        for example in page["paths"]["/api/events"]["post"]["requestBody"]["content"][
            "application/json"
        ]["examples"].values():
            many = example["value"] if isinstance(example["value"], list) else [example["value"]]
            body = [{**one, "timestamp": 1.7e9} for one in many]
            assert client.write("POST", "/api/events", body).status_code == 202
        for path in ("/api/items/{item_id}", "/api/users/{user_id}"):
            example = page["paths"][path]["put"]["requestBody"]["content"]["application/json"][
                "example"
            ]
            assert (
                client.write("PUT", path.format(item_id="x", user_id="x"), example).status_code
                == 202
            )
        for path in ("/api/items", "/api/users"):
            content = page["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            assert client.write("POST", path, content["example"]).status_code == 202


def test_metrics_count_answers(settings: Settings, redis: object) -> None:
    version = publish(settings)
    with serving(settings) as client:
        for user in range(3):
            client.get(f"{FOR_DEVELOPER}/{user}")
        client.get("/nothing/1")
        client.get("/nothing/2")
        text = client.get("/metrics").text
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    route = "/api/recommendations/{item_type}/for-{role}/{user_id}"
    assert (
        samples[
            "eddyline_api_requests_total", ("method", "GET"), ("route", route), ("status", "200")
        ]
        == 3
    )
    assert (
        samples[
            "eddyline_api_requests_total", ("method", "GET"), ("route", "none"), ("status", "404")
        ]
        == 2
    )
    assert samples["eddyline_api_model_loaded", ("version", version)] == 1
    assert samples["eddyline_api_up", ("part", "redis")] == 1
    assert samples["eddyline_api_catalogue_items",] == 8
