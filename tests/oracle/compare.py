"""The differences between what Redis and the dead-letter topic hold and what they must hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from redis import Redis

from core.settings import Settings
from tests.oracle.fold import Expected, fold
from tests.oracle.records import Partition, RecordedLog, record, sources
from tests.oracle.state import positions, read_state

_SHOWN = 5
"""Differences of one kind that are named; the rest are counted."""


def assert_equal(redis: Redis, settings: Settings, logs: RecordedLog | None = None) -> Expected:
    """Redis equals the fold of the logs up to its positions. Answers the fold. Raises
    AssertionError with the differences.

    `logs`: recorded before the broker dropped a part of them (None: what it holds now).
    """
    logs = logs or record(settings)
    stands: dict[Partition, int] = {
        (topic, partition): at
        for topic in sources(settings)
        for partition, at in positions(redis, settings, topic).items()
    }
    for partition, at in stands.items():
        end = logs.ends.get(partition, 0)
        assert at <= end, f"{partition}: Redis stands at {at}, but the log ends at {end}"
    expected = fold(settings, logs, stands)
    found = differences(redis, settings, expected)
    assert not found, "\n".join(found)
    return expected


def differences(redis: Any, settings: Settings, expected: Expected) -> list[str]:
    """One line for each thing in Redis that is otherwise than `expected`."""
    state = read_state(redis, settings)
    first_seen = {user: fields.get("first_seen") for user, fields in state.users.items()}
    counters = {
        user: {name: value for name, value in fields.items() if name != "first_seen"}
        for user, fields in state.users.items()
    }
    found = _different("user", counters, expected.users)
    found += [
        f"first_seen of {user}: {when}, expected {sorted(expected.first_seen[user])}"
        for user, when in first_seen.items()
        if user in expected.users and when not in expected.first_seen[user]
    ][:_SHOWN]
    found += [
        (
            f"history of {user}: {state.histories.get(user, [])[-3:]} is no order of "
            f"{_tails(expected.histories.get(user, {}))}"
        )
        for user in sorted(state.histories.keys() | expected.histories.keys())
        if not _is_merge(
            state.histories.get(user, []),
            list(expected.histories.get(user, {}).values()),
            settings.history_cap,
        )
    ][:_SHOWN]
    found += _different("profile", state.profiles, expected.profiles, is_one_of=True)
    found += _different("item", state.items, expected.items, is_one_of=True)
    found += _by_member("popular", state.popular, expected.popular)
    found += _by_member("trending", state.trending, expected.trending)
    found += _by_member("experiment", state.experiments, expected.experiments)
    found += [
        f"trending:{bucket} expires in {left} s"
        for bucket, left in state.expiries.items()
        if not 0 < left < 8 * 24 * 3600
    ]
    return found


def _different(
    kind: str, actual: Mapping[str, Any], expected: Mapping[str, Any], *, is_one_of: bool = False
) -> list[str]:
    """Differences by key. `is_one_of`: `expected` gives every value that is right."""
    wrong = []
    for key in sorted(actual.keys() | expected.keys()):
        if key not in expected:
            wrong.append(f"{kind} {key} must not be there: {actual[key]}")
        elif key not in actual:
            wrong.append(f"{kind} {key} is missing: {expected[key]}")
        elif actual[key] not in expected[key] if is_one_of else actual[key] != expected[key]:
            wrong.append(f"{kind} {key}: {actual[key]}, expected {expected[key]}")
    return _cut(kind, wrong)


def _by_member(
    kind: str,
    actual: Mapping[str, Mapping[str, float]],
    expected: Mapping[str, Mapping[str, float]],
) -> list[str]:
    wrong = []
    for name in sorted(actual.keys() | expected.keys()):
        mine, right = actual.get(name, {}), expected.get(name, {})
        wrong += [
            f"{kind}:{name} {member}: {mine.get(member)}, expected {right.get(member)}"
            for member in sorted(mine.keys() | right.keys())
            if mine.get(member) != right.get(member)
        ]
    return _cut(kind, wrong)


def _cut(kind: str, wrong: list[str]) -> list[str]:
    return (
        wrong
        if len(wrong) <= _SHOWN
        else [*wrong[:_SHOWN], f"{kind}: {len(wrong) - _SHOWN} more differences"]
    )


def _is_merge(lines: list[str], parts: list[list[str]], cap: int) -> bool:
    """Whether `lines` are the latest `cap` lines of some order of `parts`, each of which keeps its
    own order.
    """
    if len(lines) != min(cap, sum(map(len, parts))):
        return False
    # how many lines of each part may still lie before: all ways that fit so far
    left = {tuple(map(len, parts))}
    for line in reversed(lines):
        left = {
            (*counts[:number], count - 1, *counts[number + 1 :])
            for counts in left
            for number, count in enumerate(counts)
            if count and parts[number][count - 1] == line
        }
    return bool(left)


def _tails(by_partition: Mapping[int, list[str]]) -> dict[int, list[str]]:
    return {partition: lines[-3:] for partition, lines in by_partition.items()}


Coordinates = tuple[str, int, int]


def dead_letters(
    settings: Settings, topics: Collection[str] | None = None
) -> list[tuple[Coordinates, str]]:
    """((topic, partition, offset), code) of every dead letter of `topics` (None: all sources),
    repeats included.
    """
    wanted = sources(settings) if topics is None else topics
    logs = RecordedLog(settings).read([settings.dlq_topic])
    headers = [
        each.headers
        for partition in logs.partitions(settings.dlq_topic)
        for each in logs.of(partition)
    ]
    texts = [{name: value.decode() for name, value in each.items()} for each in headers]
    return [
        ((each["topic"], int(each["partition"]), int(each["offset"])), each["code"])
        for each in texts
        if each["topic"] in wanted
    ]


def dead_letter_differences(
    settings: Settings, expected: Expected, former: Mapping[Coordinates, str] | None = None
) -> list[str]:
    """Dead letters that are missing, or that no record explains.

    `former`: those of a topic that was deleted since; they may be there.
    """
    actual: dict[Coordinates, set[str]] = {}
    for coordinates, code in dead_letters(settings):
        actual.setdefault(coordinates, set()).add(code)
    right = {coordinates: {code} for coordinates, code in expected.dead.items()}
    for coordinates, code in (former or {}).items():
        if coordinates in actual:
            actual[coordinates] -= {code} - right.get(coordinates, set())
    return _different(
        "dead letter",
        {str(key): codes for key, codes in actual.items() if codes},
        {str(key): codes for key, codes in right.items()},
    )
