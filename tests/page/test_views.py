"""The page in a browser beside a running marketplace: a view shows what is true, and acts on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.page import shop as shops
from tests.page.conftest import Open
from tests.page.shop import ADMIN, Shop
from tests.page.window import NARROW
from tests.support import eventually

pytestmark = pytest.mark.timeout(600)
HOSTILE = '<img src="https://example.org/x.png" onerror="document.title=1"><b>bold</b>'


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with shops.running(tmp_path_factory.mktemp("shop")) as running:
        yield running


@pytest.mark.parametrize(
    "view", ["now", "models", "users/{hot}", "items/startup-9", "experiments", "dead-letters"]
)
def test_a_view_is_legible_and_accessible_on_a_laptop_and_a_dark_phone(
    shop: Shop, open_page: Open, view: str
) -> None:
    shop.get(f"/api/recommendations/{shop.users['hot']}")  # which Now shows for a minute
    window = open_page(f"{shop.url}/#/{view.format(**shop.users)}")
    if view == "dead-letters":
        window.enter_key(ADMIN)
    name = view.partition("/")[0]
    for width, scheme in ((None, "light"), (NARROW, "dark")):
        if width is not None:
            window.page.set_viewport_size({"width": width, "height": 900})
            window.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        window.check_structure(name)
        eventually(lambda: window.overflow() == 0, "no wider than the window")
        assert window.violations() == []


def test_now_shows_what_ingest_and_readers_do(shop: Shop, open_page: Open) -> None:
    page = open_page(f"{shop.url}/#/now").page

    def shown(name: str) -> Locator:
        return page.locator(".figure").filter(has=page.get_by_text(name, exact=True))

    expect(shown("Behind the log")).to_contain_text("0 messages")
    expect(shown("Model")).to_contain_text(shop.get("/api/models")["live"])
    expect(shown("From write to answer")).to_contain_text(" ms", timeout=30_000)
    processes = page.get_by_role("region", name="Processes", exact=True)
    expect(processes).to_contain_text("ingest")
    letters = page.get_by_role("region", name="Dead letters", exact=True)
    expect(letters.get_by_role("row", name="bad_field")).to_contain_text("1")
    answers = page.get_by_role("region", name="Who answers", exact=True)
    for _ in range(3):
        shop.get(f"/api/recommendations/{shop.users['hot']}")
    expect(answers.get_by_role("row", name="als")).to_be_visible()
    shop.like("guest", "startup-9")
    expect(shown("Behind the log")).to_contain_text(
        re.compile(r"newest applied event: \d+ ms ago|newest applied event: \d(\.\d)? s ago")
    )


def test_an_admin_retrains_promotes_and_rolls_back(shop: Shop, open_page: Open) -> None:
    first = shop.get("/api/models")["live"]
    window = open_page(f"{shop.url}/#/models")
    page = window.page
    page.get_by_role("button", name="Retrain").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Retrain").click()
    page.get_by_role("button", name="Request it").click()
    window.enter_key("a-wrong-key")
    window.enter_key(ADMIN)
    expect(page.get_by_text("The retrain is requested")).to_be_visible()
    eventually(lambda: shop.get("/api/models")["live"] != first, "another version live", 120)
    second = shop.get("/api/models")["live"]
    versions = page.get_by_role("region", name="Versions", exact=True)
    expect(versions.get_by_role("row", name=second)).to_contain_text("live")
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
    expect(page.get_by_text(f"{first} is live now.")).to_be_visible()
    assert shop.get("/api/models")["live"] == first
    versions.get_by_role("row", name=second).get_by_role("button", name="Promote").click()
    page.get_by_role("dialog").get_by_role("button", name="Promote").click()
    expect(page.get_by_text(f"{second} is live now.")).to_be_visible()
    assert shop.get("/api/models")["live"] == second


def test_the_report_of_a_version_is_shown_in_place(shop: Shop, open_page: Open) -> None:
    page = open_page(f"{shop.url}/#/models").page
    page.get_by_role("link", name="Report").first.click()
    report = page.frame_locator("iframe.report")
    expect(report.get_by_role("heading", name="NDCG@10 by segment")).to_be_visible()
    expect(report.locator(".drawn .plot svg.main-svg").first).to_be_visible()


def test_a_user_s_numbers_are_those_of_redis(shop: Shop, open_page: Open) -> None:
    user_id = shop.users["hot"]
    page = open_page(f"{shop.url}/#/users").page
    page.get_by_label("Id of a user, or a part of it").fill(user_id)
    page.get_by_role("button", name="Search users").click()
    expect(page.get_by_role("heading", name=user_id, exact=True)).to_be_visible()
    with shop.redis() as redis:
        state = {
            key.decode(): value.decode() for key, value in redis.hgetall(f"user:{user_id}").items()
        }  # type: ignore[union-attr]
    by_type = {name[3:]: count for name, count in state.items() if name.startswith("ev:")}
    assert "view" in by_type
    for name, count in by_type.items():
        shown = page.locator(".figure").filter(has=page.get_by_text(name, exact=True))
        expect(shown.locator("strong")).to_have_text(count)
    answer = shop.get(f"/api/recommendations/{user_id}")
    rows = page.get_by_role("region", name="The answer").locator("tbody tr")
    expect(rows).to_have_count(len(answer["recommendations"]))  # drawn after the figures
    shown = [text.split("(")[1].split(")")[0] for text in rows.locator("a").all_text_contents()]
    assert shown == [line["item_id"] for line in answer["recommendations"]]


def test_a_changed_history_changes_the_answer_and_stores_nothing(
    shop: Shop, open_page: Open
) -> None:
    user_id = shop.users["warm"]
    count = shop.count(user_id)
    page = open_page(f"{shop.url}/#/users/{user_id}").page
    answer = page.get_by_role("region", name="The answer").locator("tbody")
    expect(answer).to_contain_text("startup-")
    before = answer.inner_text()
    first = re.findall(r"\((startup-\d+)\)", before)[0]
    page.get_by_label("with the item").fill(first)
    page.get_by_role("button", name="What if?").click()
    expect(page.get_by_text(f"also like {first}")).to_be_visible()
    expect(answer).not_to_contain_text(f"({first})")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text(f"also like {first}")).to_have_count(0)
    eventually(lambda: answer.inner_text() == before, "the answer to the stored history")
    assert shop.count(user_id) == count


def test_an_item_is_searched_by_text_and_shown_with_its_users(shop: Shop, open_page: Open) -> None:
    item = shop.get("/api/items/startup-9")["item"]
    page = open_page(f"{shop.url}/#/items").page
    page.get_by_label("Words of a title").fill(item["title"])
    page.keyboard.press("Enter")
    page.get_by_role("link", name=f"{item['title']} (startup-9)").click()
    entry = page.get_by_role("region", name="The entry in the catalogue")
    expect(entry.get_by_role("row", name="categories")).to_contain_text(
        ", ".join(item["categories"])
    )
    similar = shop.get("/api/items/startup-9/similar", limit=10)["recommendations"]
    for line in similar[:3]:
        expect(page.get_by_role("link", name=f"({line['item_id']})").first).to_be_visible()
    users = shop.get("/api/items/startup-9/users")["users"]
    rows = page.get_by_role("region", name="Users who would like it").locator("tbody th")
    expect(rows).to_have_text([user["user_id"] for user in users])


@pytest.mark.parametrize(("refusals", "heading"), [(2, "Popularity over time"), (3, None)])
def test_a_read_that_the_server_cannot_answer_now_is_sent_again_twice(
    shop: Shop, open_page: Open, refusals: int, heading: str | None
) -> None:
    window = open_page(f"{shop.url}/#/items")
    page = window.page
    refused: list[str] = []

    def refuse(route: Route) -> None:
        if len(refused) == refusals:
            route.fallback()
            return
        refused.append(route.request.url)
        body = json.dumps({"error": "store_unavailable", "detail": "Redis does not answer"})
        route.fulfill(status=503, headers={"retry-after": "1"}, body=body)

    page.route("**/api/items/startup-9/activity", refuse)
    page.goto(f"{shop.url}/#/items/startup-9")
    if heading is None:
        expect(page.get_by_role("alert")).to_have_text("Redis does not answer")
    else:
        expect(page.get_by_role("heading", name=heading)).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
    assert len(refused) == refusals
    reported = [error for error in window.errors if "a status of 503" in error]
    assert len(reported) == refusals, "Chromium reports each"
    window.errors = [error for error in window.errors if error not in reported]


def test_an_experiment_shows_its_counts_and_its_verdict(shop: Shop, open_page: Open) -> None:
    for number in range(12):
        user_id = f"guest-{number}"
        answer = shop.get(f"/api/recommendations/{user_id}")
        if number % 3 == 0:
            shop.like(user_id, "startup-9", answer["recommendation_id"])

    def counted() -> list[list[str]]:
        [experiment] = shop.get("/api/experiments")["experiments"]
        return [
            [row["variant"], str(row["exposed_users"]), str(row["answers"])]
            for row in experiment["variants"]
        ]

    eventually(lambda: sum(int(users) for _, users, _ in counted()) >= 12, "the exposures counted")
    page = open_page(f"{shop.url}/#/experiments").page
    rows = page.get_by_role("region", name="Variants").locator("tbody tr")
    expect(rows).to_have_count(2)
    shown = [row.locator("th, td").all_text_contents()[:3] for row in rows.all()]
    assert shown == counted()
    expect(page.get_by_text("from_three: too early to say")).to_be_visible()


def test_a_dead_letter_is_corrected_and_counts_once(shop: Shop, open_page: Open) -> None:
    user_id = "developer-1"
    before = shop.count(user_id)
    window = open_page(f"{shop.url}/#/dead-letters")
    window.enter_key(ADMIN)
    page = window.page
    page.get_by_role("region", name="Dead letters, newest first").get_by_role("link").first.click()
    editor = page.get_by_label("Message")
    letter = json.loads(editor.input_value())
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("alert")).to_contain_text("event_type")
    editor.fill(json.dumps({**letter, "event_type": "like", "timestamp": 1_790_000_000}))
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_text("It is valid now")).to_be_visible()
    assert shop.count(user_id) == before
    page.get_by_role("button", name="Replay").click()
    page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    expect(page.get_by_text("It was sent")).to_be_visible()
    eventually(lambda: shop.count(user_id) == before + 1, "the corrected event applied")
    page.reload()
    window.enter_key(ADMIN)
    expect(page.get_by_text("It was replayed")).to_be_visible()


def test_what_others_wrote_is_text_and_never_part_of_the_page(shop: Shop, open_page: Open) -> None:
    shop.put_item("hostile", title=HOSTILE, text=HOSTILE, tags=[HOSTILE])
    page = open_page(f"{shop.url}/#/items/hostile").page
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    page.goto(f"{shop.url}/#/users/{HOSTILE}")
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    assert page.locator("main img, main b").count() == 0


def test_everything_is_reached_by_keyboard(shop: Shop, open_page: Open) -> None:
    window = open_page(f"{shop.url}/#/now")
    page = window.page
    window.press_until("Tab", "a Skip to the view", 1)
    window.press_until("Tab", "a Users")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Users", exact=True)).to_be_visible()
    window.press_until("Tab", "input")
    page.keyboard.type(shop.users["hot"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=shop.users["hot"], exact=True)).to_be_visible()
    window.press_until("Tab", "button Explain startup-", 200)
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="Its score by each engine")).to_be_visible()


def test_a_server_that_wants_a_key_gets_it_from_the_page_s_memory_only(
    shop: Shop, open_page: Open
) -> None:
    with shop.another_api(API_READ_KEYS="a-readers-key") as address:
        window = open_page(f"{address}/#/users/{shop.users['hot']}")
        page = window.page
        window.enter_key("a-wrong-key")
        expect(page.get_by_role("dialog")).to_contain_text("Key")
        window.enter_key("a-readers-key")
        name = shop.users["hot"]
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
        stored = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]")
        assert stored == [0, 0, ""]
        page.reload()
        expect(page.get_by_role("dialog")).to_be_visible()


def test_the_documentation_of_the_api_loads_from_this_server_only(
    shop: Shop, open_page: Open
) -> None:
    page = open_page(f"{shop.url}/docs").page
    operations = page.locator(".opblock")
    operations.first.wait_for()
    assert operations.count() > 20
