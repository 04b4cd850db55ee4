"""The clients' types are the server's: each route, parameter, field, type and default."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from api.app import create_app
from core.settings import Settings
from eddyline_client import calls, contract, types
from eddyline_client.errors import InvalidInput

CONTRACT = Path(__file__).parents[2] / "docs" / "contract"
OPENAPI = create_app(Settings(_env_file=None)).openapi()
INPUTS = {"interaction": types.Event, "item": types.Item, "user": types.User}
ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "interaction": contract.encode_event,
    "item": contract.encode_item,
    "user": contract.encode_user,
}
EVENT = types.Event(user_id="42", item_id="9", event_type="like")
ITEM = types.Item(item_id="9", item_type="startup")
USER = types.User(user_id="42")
CALLS: dict[str, tuple[calls.Call[Any], Any]] = {
    "/api/recommendations/{user_id}": (calls.recommend("42"), calls.PersonalOptions),
    "/api/explain/{user_id}/{item_id}": (calls.explain("42", "9"), calls.WhatIfOptions),
    "/api/preview/{user_id}": (calls.preview("42"), calls.WhatIfOptions),
    "/api/items/{item_id}/similar": (calls.similar_items("9"), calls.ItemOptions),
    "/api/popular": (calls.popular(), calls.PopularOptions),
    "/api/users/{user_id}/similar": (calls.similar_users("42"), calls.SimilarUserOptions),
    "GET /api/users/{user_id}": (calls.user("42"), calls.UserOptions),
    "/api/events": (calls.publish([contract.encode_event(EVENT)]), None),
    "GET /api/items/{item_id}": (calls.item("9"), calls.UserOptions),
    "GET /api/items": (calls.items(), calls.PageOptions),
    "POST /api/items": (calls.upsert_items([ITEM]), None),
    "PATCH /api/items/{item_id}": (calls.patch_item("9", {"available": False}), None),
    "POST /api/users": (calls.upsert_users([USER]), None),
    "PATCH /api/users/{user_id}": (calls.patch_user("42", {"roles": []}), None),
    "PUT /api/items/{item_id}": (calls.upsert_item(ITEM), None),
    "DELETE /api/items/{item_id}": (calls.delete_item("9"), None),
    "PUT /api/users/{user_id}": (calls.upsert_user(USER), None),
    "DELETE /api/users/{user_id}": (calls.delete_user("42"), None),
}
"""Route in the OpenAPI document -> the client's call and its options."""
OTHER_ROUTES = (
    r"\w+ (/api/models.*|/api/dead-letters.*|/api/experiments|/api/live|/health/.*|/metrics)"
    r"|GET (/api/items/\{item_id\}/(activity|users)|/api/users)"
    r"|GET /api/recommendations/\{item_type\}/for-\{role\}/\{user_id\}"
)
"""For operators and the page; and recommendations by path, which `use_case` gives by name."""
INPUT_IDS = {"User": "user_id", "Item": "item_id"}
WIDER = {"category", "item_type", "exclude", "attr"}
"""Options that are lists in the clients, and one text in the server's document."""


def published(kind: str) -> Any:
    """A JSON Schema of docs/contract, with its definitions inlined."""
    schema = msgspec.json.decode((CONTRACT / f"{kind}.schema.json").read_bytes())

    def inlined(part: Any) -> Any:
        if isinstance(part, dict):
            definition = (
                schema["$defs"][part["$ref"].removeprefix("#/$defs/")] if "$ref" in part else {}
            )
            return {
                **{name: inlined(inner) for name, inner in part.items() if name != "$ref"},
                **definition,
            }
        return [inlined(inner) for inner in part] if isinstance(part, list) else part

    return inlined(schema)


def shape(schema: dict[str, Any]) -> Any:
    """What a JSON Schema allows, in one spelling: nothing but types, references and
    enumerations.
    """
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1]
    if "anyOf" in schema or isinstance(schema.get("type"), list):
        choices = schema.get("anyOf") or [{**schema, "type": choice} for choice in schema["type"]]
        union = frozenset().union(*(as_set(shape(choice)) for choice in choices))
        return union - {"integer"} if "number" in union else union
    if "enum" in schema:
        return ("one of", frozenset(schema["enum"]))
    if schema.get("type") == "array":
        return ("array", shape(schema["items"]))
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties", True)
        return ("map", "anything" if inner is True else shape(inner))
    return schema.get("type", "anything")


def as_set(value: Any) -> frozenset[Any]:
    return value if isinstance(value, frozenset) else frozenset({value})


def fields(schema: dict[str, Any]) -> dict[str, tuple[Any, bool, Any]]:
    """Field -> shape, required or not, default (null and empty are the same as none)."""
    required = schema.get("required", [])
    return {
        name: (shape(field), name in required, field.get("default") or None)
        for name, field in schema["properties"].items()
    }


def of_client(kind: Any) -> dict[str, tuple[Any, bool, Any]]:
    (_, components) = msgspec.json.schema_components([kind], ref_template="#/{name}")
    return fields(components[kind.__name__])


def operation(route: str) -> dict[str, Any]:
    call, _ = CALLS[route]
    return OPENAPI["paths"][route.rsplit(maxsplit=1)[-1]][call.method.lower()]


def reachable() -> list[str]:
    """Components in the answers to the client's calls."""
    names: set[str] = set()
    waiting = [str(operation(route)["responses"]) for route in CALLS]
    while waiting:
        for name in set(re.findall(r"#/components/schemas/(\w+)", waiting.pop())) - names:
            names.add(name)
            waiting.append(str(OPENAPI["components"]["schemas"][name]))
    return sorted(names)


def test_the_client_has_a_call_for_every_route() -> None:
    documented = {
        (method.upper(), path)
        for path, operations in OPENAPI["paths"].items()
        for method in operations
        if not re.fullmatch(OTHER_ROUTES, f"{method.upper()} {path}")
    }
    assert {(call.method, route.split()[-1]) for route, (call, _) in CALLS.items()} == documented


@pytest.mark.parametrize("route", CALLS)
def test_a_call_has_the_path_the_options_and_the_answer_of_its_route(route: str) -> None:
    call, options = CALLS[route]
    assert re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.rsplit(maxsplit=1)[-1]), call.path)
    answers = {
        code: body["content"]["application/json"]["schema"]
        for code, body in operation(route)["responses"].items()
    }
    success = "202" if call.method != "GET" else "200"
    assert shape(answers.pop(success)) == call.answer.__name__
    if call.method == "POST":  # some accepted; none valid
        assert shape(answers.pop("207")) == call.answer.__name__
        assert shape(answers.pop("422")) == frozenset({"Error", call.answer.__name__})
    assert {shape(answer) for answer in answers.values()} == {"Error"}
    parameters = {one["name"]: one for one in reversed(operation(route)["parameters"])}
    # ids are parameters of the path first, and that is where a client has them
    documented = {name: one["schema"] for name, one in parameters.items() if one["in"] == "query"}
    if options is None:
        assert not documented
        return
    (_, components) = msgspec.json.schema_components([options], ref_template="#/{name}")
    own = components[options.__name__]["properties"]
    assert own.keys() == documented.keys()
    for name in own.keys() - WIDER:
        assert as_set(shape(own[name])) == as_set(shape(documented[name])) - {"null"}, name


@pytest.mark.parametrize("name", reachable())
def test_an_answer_has_the_fields_of_the_openapi_document(name: str) -> None:
    documented, own = (
        fields(OPENAPI["components"]["schemas"][name]),
        of_client(getattr(types, name)),
    )
    if name in INPUT_IDS:  # an answer always has the id; as a body it may leave that to the path
        documented[INPUT_IDS[name]] = ("string", True, None)
        # compared with the JSON Schema below, which is more precise
        own["attributes"] = documented["attributes"]
    assert own == documented


@pytest.mark.parametrize(
    ("kind", "route"),
    [
        ("interaction", "/api/events"),
        ("item", "PUT /api/items/{item_id}"),
        ("user", "PUT /api/users/{user_id}"),
    ],
)
def test_bodies_have_the_fields_of_both_documents(kind: str, route: str) -> None:
    schema = published(kind)
    own = of_client(INPUTS[kind])
    # made by the client, so always sent
    for name in ("event_id", "timestamp") if kind == "interaction" else ():
        own[name] = (own[name][0], True, own[name][2])
    assert own == fields(schema)
    body = operation(route)["requestBody"]["content"]["application/json"]["schema"]
    over_http = fields(body["oneOf"][0] if "oneOf" in body else body)
    loose = {
        "context": (frozenset({("map", "anything"), "null"}), False, None),
        "attributes": (("map", "anything"), False, None),
        "timestamp": (frozenset({"number", "string"}), True, None),
        "created_at": (frozenset({"number", "string", "null"}), False, None),
    }
    if kind != "interaction":
        over_http[f"{kind}_id"] = ("string", True, None)
    assert {**own, **{name: field for name, field in loose.items() if name in own}} == over_http


@pytest.mark.parametrize(
    ("kind", "entry"), [("interaction", EVENT), ("item", ITEM), ("user", USER)]
)
def test_the_shortest_entry_is_valid(kind: str, entry: Any) -> None:
    jsonschema.validate(msgspec.json.decode(ENCODERS[kind](entry)), published(kind))


def example(path: Path) -> tuple[Any, Callable[[Any], bytes]]:
    """A published example as an application makes it in Python."""
    kind = path.name.split("_", maxsplit=1)[0]
    known = INPUTS[kind].__struct_fields__
    made = INPUTS[kind](
        **{
            name: value
            for name, value in msgspec.json.decode(path.read_bytes()).items()
            if name in known
        }
    )
    encoders: dict[str, Callable[[Any], bytes]] = {
        "interaction": contract.encode_event,
        "item": contract.encode_item,
        "user": contract.encode_user,
    }
    return made, encoders[kind]


@pytest.mark.parametrize(
    "path", sorted((CONTRACT / "examples/good").iterdir()), ids=lambda path: path.name
)
def test_a_valid_example_can_be_sent(path: Path) -> None:
    entry, encode = example(path)
    original = msgspec.json.decode(path.read_bytes())
    sent = msgspec.json.decode(encode(entry))
    assert {name: value for name, value in sent.items() if value not in (None, [], {})}.items() <= {
        **original,
        **sent,
    }.items()


OF_A_STRUCT = ("bad_field", "bad_id", "bad_timestamp", "bad_value", "too_large", "unknown")
"""Starts of the codes of what a struct can express: it is no JSON, no envelope and no record."""
BAD = [
    entry
    for entry in msgspec.json.decode((CONTRACT / "examples/expected.json").read_bytes())["bad"]
    if entry["code"].startswith(OF_A_STRUCT)
    and "configuration" not in entry.get("schema_accepts_because", "")
]
"""Without those that only the server can check."""


@pytest.mark.parametrize("expected", BAD, ids=lambda entry: entry["file"])
def test_an_invalid_example_is_refused_before_it_is_sent_with_the_code_of_the_server(
    expected: dict[str, Any],
) -> None:
    path = CONTRACT / "examples/bad" / expected["file"]
    if expected["code"] == "too_large":
        with pytest.raises(InvalidInput, match="more than 65536") as refused:
            contract.encode_event(
                msgspec.structs.replace(EVENT, context={"text": "x" * expected["grow_to_bytes"]})
            )
    else:
        try:
            entry, encode = example(path)
        # a field is missing, or it is no object: the struct refuses it
        except (TypeError, AttributeError):
            assert expected["code"] == "bad_field"
            return
        with pytest.raises(InvalidInput) as refused:
            encode(entry)
    assert refused.value.code == expected["code"]


@pytest.mark.parametrize("field", ["value", "timestamp"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_refused(field: str, number: float) -> None:
    with pytest.raises(InvalidInput):
        contract.encode_event(msgspec.structs.replace(EVENT, **{field: number}))
    with pytest.raises(InvalidInput):
        contract.encode_item(msgspec.structs.replace(ITEM, created_at=number))


def test_an_event_gets_its_id_and_time_once() -> None:
    first, second = (types.Event(user_id="42", item_id="9", event_type="like") for _ in range(2))
    assert first.event_id != second.event_id
    assert abs(first.timestamp - time.time()) < 60
    assert contract.encode_event(first) == contract.encode_event(first), (
        "sent again, it is the same event"
    )
