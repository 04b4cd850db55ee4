"""Items and users over HTTP: whole entries, single fields, many at once, page after page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from api.schemas.answers import EntryResults, ItemAnswer, ItemPage
from core.settings import Settings
from core.types import Item
from store.log.client import ensure_topics
from testing.process import Child
from tests.api.world import Client, checked, event, serving, store_items, until_missing
from tests.conftest import Spawn
from tests.support import eventually

LEDGER = {
    "item_type": "startup",
    "title": "Ledgerly",
    "categories": ["fintech"],
    "attributes": {"stage": "seed", "team_size": 7},
}


@pytest.fixture
def api(settings: Settings, redis: Redis, broker: object) -> Iterator[Client]:
    ensure_topics(settings)
    with serving(settings) as client:
        until_missing(client, "als", "content", "popular", "model")  # no bundle is needed to write
        yield client


@pytest.fixture
def ingest(api: Client, spawn: Spawn) -> Child:
    child = spawn("streams", "ingest")
    token = api.write("PUT", "/api/users/first", {}).json()["token"]
    stored(api, "/api/users/first", token)
    return child


def stored(api: Client, path: str, token: str) -> dict[str, object]:
    """The entry at `path` once the write of `token` is in it."""
    return eventually(
        lambda: (
            body
            if (answer := api.get(f"{path}?after={token}")).status_code == 200
            and not (body := answer.json())["stale"]
            else None
        ),
        f"{path} after {token}",
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "nearest"),
    [
        ("PUT", "/api/items/x", {**LEDGER, "titel": "Ledgerly"}, "title"),
        ("PATCH", "/api/items/x", {"availble": False}, "available"),
        ("PUT", "/api/users/x", {"intrests": ["fintech"]}, "interests"),
        ("PATCH", "/api/users/x", {"role": ["developer"]}, "roles"),
    ],
)
def test_a_misspelt_field_is_refused_with_the_nearest_known_one(
    api: Client, method: str, path: str, body: object, nearest: str
) -> None:
    answer = api.write(method, path, body)
    assert (answer.status_code, answer.json()["error"]) == (422, "unknown_field")
    assert f"did you mean {nearest}?" in answer.json()["detail"]


def test_the_creation_of_an_item_may_be_iso_8601_text(api: Client, ingest: Child) -> None:
    created = "2025-10-09T10:53:20+02:00"
    for method, path, body in (
        ("PUT", "/api/items/iso", {**LEDGER, "created_at": created}),
        ("POST", "/api/items", [{"item_id": "iso", **LEDGER, "created_at": created}]),
        ("PATCH", "/api/items/iso", {"created_at": created}),
    ):
        answer = api.write(method, path, body)
        assert answer.status_code == 202, answer.text
        token = answer.json().get("token") or answer.json()["results"][0]["token"]
        assert stored(api, "/api/items/iso", token)["item"]["created_at"] == 1_760_000_000  # type: ignore[index]


def test_a_misspelt_field_of_an_event_is_refused_with_the_nearest_known_one(api: Client) -> None:
    answer = api.write("POST", "/api/events", event(usecase="developer_startup"))
    result = answer.json()["results"][0]
    assert (answer.status_code, result["error"]) == (422, "unknown_field")
    assert "did you mean use_case?" in result["detail"]


def test_a_patch_changes_its_fields_and_leaves_all_others(api: Client, ingest: Child) -> None:
    api.write("PUT", "/api/items/ledger", LEDGER)
    change = {"available": False, "attributes": {"stage": None, "team_size": 9}, "text": "Books."}
    patched = api.write("PATCH", "/api/items/ledger", change)
    assert patched.status_code == 202, patched.text
    body = stored(api, "/api/items/ledger", patched.json()["token"])
    item = checked(body, ItemAnswer).item
    assert (item.title, item.categories) == ("Ledgerly", ["fintech"])
    assert (item.attributes, item.available, item.text) == ({"team_size": 9}, False, "Books.")

    user = api.write("PATCH", "/api/users/new", {"interests": ["health"]})
    assert user.status_code == 202, "a user may begin to declare by PATCH"
    patched = api.write("PATCH", "/api/users/new", {"roles": ["developer"]})
    profile = stored(api, "/api/users/new", patched.json()["token"])["profile"]
    assert profile == {"user_id": "new", "roles": ["developer"], "interests": ["health"]}


def test_a_patch_includes_every_earlier_write_however_fast_it_follows(
    api: Client, ingest: Child
) -> None:
    for number in range(10):
        api.write("PUT", "/api/items/fast", {**LEDGER, "title": f"title {number}"})
        patched = api.write("PATCH", "/api/items/fast", {"tags": [str(number)]})
    item = checked(stored(api, "/api/items/fast", patched.json()["token"]), ItemAnswer).item
    assert (item.title, item.tags) == ("title 9", ["9"])


def test_a_patch_is_refused_while_earlier_writes_are_not_applied(api: Client) -> None:
    api.write("PUT", "/api/items/x", LEDGER)
    answer = api.write("PATCH", "/api/items/x", {"available": False})
    assert answer.status_code == 503
    assert "not applied yet" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/api/items/nowhere", {"available": False}, 404, "not_found"),
        ("/api/items/nowhere", [], 422, "bad_field"),
        ("/api/items/nowhere", b"{", 400, "not_json"),
        ("/api/users/x", {"roles": 3}, 422, "bad_field"),
        ("/api/users/x", {"user_id": "y"}, 422, "bad_id"),
    ],
)
def test_a_wrong_patch_is_refused_with_the_cause(
    api: Client, path: str, body: object, status: int, error: str
) -> None:
    answer = api.write("PATCH", path, body)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_each_of_many_entries_is_accepted_or_rejected_by_itself(api: Client, ingest: Child) -> None:
    bodies = [{"item_id": f"item-{number}", **LEDGER} for number in range(996)]
    bad = [{"item_id": "x"}, {**LEDGER, "item_id": "y", "tag": []}, LEDGER, 7]
    answer = api.write("POST", "/api/items", bodies + bad)
    results = checked(answer.json(), EntryResults)
    assert (answer.status_code, results.accepted, results.rejected) == (207, 996, 4)
    assert [result.error for result in results.results[-4:]] == [
        "bad_field",
        "unknown_field",
        "bad_field",
        "bad_field",
    ]
    last = results.results[995]
    assert last.id == "item-995"
    stored(api, "/api/items/item-995", str(last.token))

    users = api.write("POST", "/api/users", [{"user_id": "42", "interests": ["fintech"]}])
    assert users.status_code == 202
    token = users.json()["results"][0]["token"]
    assert stored(api, "/api/users/42", token)["profile"] == {
        "user_id": "42",
        "interests": ["fintech"],
    }
    assert api.write("POST", "/api/users", [{}]).status_code == 422
    assert api.write("POST", "/api/users", [{}] * 1001).json()["error"] == "bad_count"


def test_a_listing_has_every_item_once_page_after_page(api: Client, redis: Redis) -> None:
    store_items(
        redis, *(Item(item_id=f"item-{number}", item_type="startup") for number in range(700))
    )
    items, cursor, pages = [], "", 0
    while True:
        page = checked(api.get(f"/api/items?cursor={cursor}&limit=100").json(), ItemPage)
        items += [item.item_id for item in page.items]
        pages += 1
        if page.cursor is None:
            break
        cursor = page.cursor
    assert sorted(items) == sorted(f"item-{number}" for number in range(700))
    assert pages >= 5


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("cursor=x", "invalid_parameter"),
        ("limit=0", "invalid_parameter"),
        ("limit=1001", "invalid_parameter"),
        ("offset=3", "unknown_parameter"),
    ],
)
def test_a_wrong_listing_is_refused_with_the_parameter(api: Client, query: str, error: str) -> None:
    answer = api.get(f"/api/items?{query}")
    assert (answer.status_code, answer.json()["error"]) == (422, error)


def test_an_unknown_item_is_a_404(api: Client) -> None:
    answer = api.get("/api/items/nowhere")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
