"""Checks the oracle on logs that are small enough to fold by hand."""

from __future__ import annotations

import pytest

from core.codec import encode_json
from core.settings import Settings
from core.types import Interaction, Item, User
from tests.oracle.compare import is_merge
from tests.oracle.fold import Expected, fold
from tests.oracle.records import Record, RecordedLog

NOW = 1_800_000_000.0


class Logs(RecordedLog):
    """Logs written by a test; each record is one second later than the one before."""

    def put(
        self, topic: str, key: str, value: bytes | None, partition: int = 0, at: float | None = None
    ) -> None:
        records = self.records.setdefault((topic, partition), [])
        offset = len(records)
        self.ends[topic, partition] = offset + 1
        records.append(
            Record(
                topic,
                partition,
                offset,
                NOW + offset if at is None else at,
                key.encode(),
                value,
                {},
            )
        )

    def view(
        self, event_id: str, user_id: str = "alice", partition: int = 0, at: float | None = None
    ) -> None:
        event = Interaction(event_id, user_id, f"item-of-{event_id}", "view", NOW)
        self.put("interactions", user_id, encode_json(event), partition, at)

    def user(self, at: float, interest: str | None, partition: int = 0) -> None:
        user = (
            None if interest is None else encode_json(User(user_id="alice", interests=[interest]))
        )
        self.put("users", "alice", user, partition, at)


@pytest.fixture
def logs() -> Logs:
    return Logs(_settings())


def _settings() -> Settings:
    return Settings(
        interactions_topic="interactions", items_topic="items", users_topic="users", dedup_window=2
    )


def _fold(logs: Logs) -> Expected:
    return fold(_settings(), logs)


def _events(expected: Expected) -> dict[str, str]:
    return {user: fields["events"] for user, fields in expected.users.items()}


def test_an_event_id_counts_once_within_the_window_of_its_partition(logs: Logs) -> None:
    for event_id in (
        "a",
        "a",
        "b",
        "a",
        "c",
        "d",
        "a",
    ):  # the last one: 3 offsets later
        logs.view(event_id)
    logs.view("a", partition=1)
    expected = _fold(logs)
    assert (_events(expected), expected.duplicates) == ({"alice": "6"}, 2)
    lines = {
        partition: [line.split(" ")[2] for line in history]
        for partition, history in expected.histories["alice"].items()
    }
    assert lines == {
        0: ["item-of-a", "item-of-b", "item-of-c", "item-of-d", "item-of-a"],
        1: ["item-of-a"],
    }


def test_an_event_counts_if_its_broker_time_is_after_the_last_deletion_of_its_user(
    logs: Logs,
) -> None:
    for at in (1.0, 2.0, 3.0, 4.0):
        logs.view(f"e{at}", at=NOW + at)
    logs.view("of-bob", "bob", at=NOW)
    logs.user(NOW + 1, None)
    logs.user(NOW + 3, None)
    expected = _fold(logs)
    assert (_events(expected), expected.skipped) == ({"alice": "1", "bob": "1"}, 3)
    assert sum(expected.popular["unlabelled"].values()) > 0
    assert len(expected.popular["unlabelled"]) == 5, "popularity keeps what a deleted user added"


def test_a_profile_is_the_last_one_after_the_last_deletion(logs: Logs) -> None:
    logs.user(NOW, "old")
    logs.user(NOW, None)
    assert _fold(logs).profiles == {}
    logs.user(NOW, "new")  # in the same millisecond, but at a later offset
    logs.user(NOW, "newer")
    assert [user.interests for user in _fold(logs).profiles["alice"]] == [["newer"]]


def test_a_deletion_outdates_older_profiles_in_every_partition(logs: Logs) -> None:
    logs.user(NOW, "before", partition=0)
    logs.user(NOW + 2, "after", partition=1)
    assert sorted(user.interests[0] for user in _fold(logs).profiles["alice"]) == [
        "after",
        "before",
    ]
    logs.user(NOW + 1, None, partition=2)
    assert [user.interests for user in _fold(logs).profiles["alice"]] == [["after"]]


def test_the_fold_ends_at_the_positions_but_includes_all_deletions(logs: Logs) -> None:
    logs.view("a", at=NOW)
    logs.view("b", at=NOW + 2)
    logs.user(NOW + 1, "declared")
    logs.user(NOW + 1, None)
    expected = fold(_settings(), logs, {("interactions", 0): 2})
    assert (_events(expected), expected.profiles) == ({"alice": "1"}, {})


def test_a_bad_record_is_a_dead_letter_of_its_topic(logs: Logs) -> None:
    logs.put("interactions", "alice", b"not json")
    logs.put("items", "a", encode_json(Item(item_id="b", item_type="startup")))
    logs.put("users", "", None)
    codes = {
        ("interactions", 0, 0): "not_json",
        ("items", 0, 0): "bad_key",
        ("users", 0, 0): "bad_id",
    }
    assert _fold(logs).dead == codes


@pytest.mark.parametrize(
    ("lines", "parts", "cap", "fits"),
    [
        ("abc", ["abc"], 9, True),
        ("bca", ["abc"], 9, False),
        ("axby", ["ab", "xy"], 9, True),
        ("aybx", ["ab", "xy"], 9, False),
        ("by", ["ab", "xy"], 2, True),
        ("ab", ["ab", "xy"], 2, True),
        ("ax", ["ab", "xy"], 2, False),
        ("aba", ["ab", "aa"], 9, False),
        ("", [], 9, True),
    ],
)
def test_a_history_is_the_end_of_a_merge_of_its_partitions(
    lines: str, parts: list[str], cap: int, fits: bool
) -> None:
    assert is_merge(list(lines), [list(part) for part in parts], cap) is fits
