"""Dead letters over HTTP: who may see them, how they are listed, and that each is replayed once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import msgspec
import pytest
from redis import Redis

from api.schemas.answers import Error
from api.schemas.dead_letters import DeadLetterAnswer, DeadLetterPage, Replayed
from core import codec
from core.deletions import IdHasher, Place
from core.errors import BadEvent
from core.settings import Settings
from store.dead_letters.letters import read
from store.log import client as log
from store.log import dead_letters
from store.log.message import LogMessage
from store.state import keys
from store.state.apply import deletions
from tests.api.world import KEY, Client, checked, serving
from tests.streams.dead_letters.world import BROKER_TIME, VALID, letter_of, write
from tests.topics import messages

ADMIN = "an-admins-key"
FUTURE = {**VALID, "timestamp": 99_999_999_999}
ROUTES = [
    ("GET", "/api/dead-letters"),
    ("GET", "/api/dead-letters/interactions:0:1"),
    ("POST", "/api/dead-letters/interactions:0:1/replay"),
]


class Admin:
    """An admin's client of one API."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client, self._settings = client, settings

    def page(self, query: str = "") -> DeadLetterPage:
        answer = self._request("GET", f"/api/dead-letters{query}")
        assert answer.status_code == 200, answer.text
        return checked(answer.json(), DeadLetterPage)

    def offsets(self, query: str = "") -> list[int]:
        return [int(letter.place.rsplit(":", 1)[1]) for letter in self.page(query).letters]

    def letter(self, offset: int) -> DeadLetterAnswer:
        answer = self._request("GET", f"/api/dead-letters/{self.place(offset)}")
        assert answer.status_code == 200, answer.text
        return checked(answer.json(), DeadLetterAnswer)

    def replay(self, offset: int, **body: Any) -> httpx.Response:
        return self.replay_place(self.place(offset), **body)

    def replay_place(self, place: str, **body: Any) -> httpx.Response:
        return self._request("POST", f"/api/dead-letters/{place}/replay", json=body)

    def place(self, offset: int) -> str:
        return f"{self._settings.interactions_topic}:0:{offset}"

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._client.request(method, path, headers={"x-api-key": ADMIN}, **options)


@pytest.fixture
def admin(settings: Settings, redis: Redis, broker: object) -> Iterator[Admin]:
    log.ensure_topics(settings)
    deletions.mark_ready(redis)
    with serving(settings, api_admin_keys=ADMIN) as client:
        yield Admin(client, settings)


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, checked(answer.json(), Error).error


def sent(settings: Settings) -> list[tuple[dict[str, Any], dict[str, bytes]]]:
    """Value and headers of every event in the log."""
    return [
        (msgspec.json.decode(message.value()), dict(message.headers() or ()))
        for message in messages(settings, settings.interactions_topic)
    ]


def test_only_admins_see_and_replay_dead_letters(settings: Settings, redis: object) -> None:
    with serving(settings, api_admin_keys=ADMIN, api_read_keys="a-readers-key") as client:
        for method, path in ROUTES:
            for key, expected in (
                ("", (401, "unauthorized")),
                ("wrong", (401, "unauthorized")),
                ("a-readers-key", (401, "unauthorized")),
                (KEY, (403, "forbidden")),
            ):
                answer = client.request(method, path, headers={"x-api-key": key})
                assert refused(answer) == expected
    with serving(settings) as client:
        for method, path in ROUTES:
            answer = client.request(method, path, headers={"x-api-key": KEY})
            assert refused(answer) == (403, "admin_disabled")


def test_letters_are_listed_newest_first_by_code_and_page(admin: Admin, settings: Settings) -> None:
    for offset in range(1, 6):
        value = b"not JSON" if offset % 2 else codec.encode_json(FUTURE)
        write(settings, letter_of(settings, offset, value))
    page = admin.page()
    assert [letter.place for letter in page.letters] == [
        admin.place(offset) for offset in (5, 4, 3, 2, 1)
    ]
    assert (page.waiting, page.replayed, page.complete) == (5, 0, True)
    assert page.codes == {"not_json": 3, "bad_timestamp": 2}
    assert page.letters[0].at == BROKER_TIME + 5
    assert "timestamp" in page.letters[1].reason
    assert admin.offsets("?code=bad_timestamp") == [4, 2]
    first = admin.page("?limit=2")
    second = admin.page(f"?limit=2&cursor={first.cursor}")
    third = admin.page(f"?limit=2&cursor={second.cursor}")
    assert [len(page.letters) for page in (first, second, third)] == [2, 2, 1]
    assert third.cursor is None
    write(settings, letter_of(settings, 6, b"not JSON"))
    assert admin.offsets() == [6, 5, 4, 3, 2, 1], "a letter that came meanwhile is listed"


def test_a_letter_shows_the_message_as_it_came(admin: Admin, settings: Settings) -> None:
    write(settings, letter_of(settings, 1, b"not \xff JSON"))
    letter = admin.letter(1)
    assert (letter.message, letter.key, letter.code) == ("not \\xff JSON", "u1", "not_json")
    assert (letter.truncated, letter.replayed_to, letter.bytes) == (False, None, 10)
    assert refused(admin.replay(2)) == (404, "not_found")


@pytest.mark.process
def test_a_corrected_letter_is_sent_once_and_says_where_it_came_from(
    admin: Admin, settings: Settings
) -> None:
    write(settings, letter_of(settings, 1, codec.encode_json(FUTURE)))
    assert refused(admin.replay(1)) == (422, "bad_timestamp"), "as it is it is still refused"
    answer = admin.replay(1, message=VALID, dry_run=True)
    assert checked(answer.json(), Replayed).token is None
    assert sent(settings) == [], "a dry run sends nothing"
    answer = admin.replay(1, message=VALID)
    assert answer.status_code == 202
    token = checked(answer.json(), Replayed).token
    assert refused(admin.replay(1, message=VALID)) == (409, "already_replayed")
    place = admin.place(1).encode()
    assert sent(settings) == [(VALID, {"replayed_from": place})]
    assert read(settings).replayed == {(settings.interactions_topic, 0, 1): token}, (
        "the command dlq sees that it was replayed"
    )
    assert (admin.page().waiting, admin.page().replayed) == (0, 1)
    assert admin.letter(1).replayed_to == token
    with serving(settings, api_admin_keys=ADMIN) as other:
        assert refused(Admin(other, settings).replay(1)) == (409, "already_replayed"), (
            "another process sees it too"
        )


def test_two_admins_who_replay_a_letter_at_once_send_it_once(
    admin: Admin, settings: Settings
) -> None:
    write(settings, letter_of(settings, 1, codec.encode_json(FUTURE)))
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(admin.replay, 1, message=VALID) for _ in range(2)]
        assert sorted(answer.result().status_code for answer in answers) == [202, 409]
    assert len(sent(settings)) == 1


def test_a_message_between_processes_is_not_replayed(admin: Admin, settings: Settings) -> None:
    message = LogMessage(settings.retrain_requests_topic, 0, 4, BROKER_TIME, b"k", b"{}")
    write(settings, dead_letters.encode(message, BadEvent("bad_field", "no")))
    place = f"{settings.retrain_requests_topic}:0:4"
    answer = admin.replay_place(place, message=VALID)
    assert refused(answer) == (422, "not_replayable")


def test_a_letter_without_an_event_id_gets_one_from_its_place(
    admin: Admin, settings: Settings
) -> None:
    fields = {name: value for name, value in VALID.items() if name != "event_id"}
    write(settings, letter_of(settings, 3, codec.encode_json(fields)))
    assert admin.replay(3).status_code == 202
    assert sent(settings)[0][0]["event_id"] == f"replay:{admin.place(3)}"


def test_a_letter_of_a_user_who_was_deleted_since_is_refused(
    admin: Admin, settings: Settings, redis: Redis
) -> None:
    write(settings, letter_of(settings, 1, codec.encode_json(FUTURE)))
    redis.delete(keys.ONLY.deletions)
    assert refused(admin.replay(1, message=VALID)) == (503, "store_unavailable"), (
        "while Redis does not have the deletions, none is replayed"
    )
    deletions.mark_ready(redis)
    digest = IdHasher(settings.deletion_salt)("user", "u1")
    redis.hset(keys.ONLY.users_deleted, digest, Place(BROKER_TIME + 100).text())
    for user_id in ("u1", "u2"):  # the letter's key is u1
        edited = {**VALID, "user_id": user_id}
        assert refused(admin.replay(1, message=edited)) == (409, "deleted")
    assert sent(settings) == []
    assert admin.page().waiting == 1


def test_a_deletion_that_ingest_has_not_applied_yet_is_waited_for(
    settings: Settings, redis: Redis, broker: object
) -> None:
    log.ensure_topics(settings)
    deletions.mark_ready(redis)
    write(settings, letter_of(settings, 1, codec.encode_json(FUTURE)))
    with serving(settings, api_admin_keys=ADMIN, api_after_s=0.2) as client:
        assert client.write("DELETE", "/api/users/u1").status_code == 202
        answer = Admin(client, settings).replay(1, message=VALID)
        assert refused(answer) == (503, "store_unavailable")
        assert "ingest" in answer.json()["detail"]
    assert sent(settings) == []


def test_without_a_broker_the_answer_says_so(settings: Settings, redis: object) -> None:
    with serving(settings, api_admin_keys=ADMIN, kafka_timeout_s=1.0) as client:
        answer = client.get("/api/dead-letters", headers={"x-api-key": ADMIN})
        assert refused(answer) == (503, "log_unavailable")


def test_a_wrong_parameter_is_named(settings: Settings, redis: object) -> None:
    with serving(settings, api_admin_keys=ADMIN) as client:
        for path in ("?limit=0", "?cursor=17", "?colour=red", "/17"):
            answer = client.get(f"/api/dead-letters{path}", headers={"x-api-key": ADMIN})
            assert answer.status_code == 422, path
