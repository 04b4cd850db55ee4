"""Lists the differences of Redis and the dead-letter topic from the expected state."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from core.settings import Settings
from tests.oracle.fold import Expected, fold
from tests.oracle.records import Partition, RecordedLog, record, sources
from tests.oracle.state import Source, positions, read_state

_SHOWN = 5
"""Differences of one kind that are listed; the rest is counted."""


def assert_equal(redis: Source, settings: Settings, logs: RecordedLog | None = None) -> Expected:
    """Check that Redis equals the fold of the logs up to its positions, and return the fold.

    `logs`: read before the broker removed a part of them (None: the current logs). Raises
    AssertionError with the differences.
    """
    logs = logs or record(settings)
    offsets: dict[Partition, int] = {
        (topic, partition): offset
        for topic in sources(settings)
        for partition, offset in positions(redis, settings, topic).items()
    }
    for partition, offset in offsets.items():
        end = logs.ends.get(partition, 0)
        assert offset <= end, f"{partition}: Redis stands at {offset}, but the log ends at {end}"
    expected = fold(settings, logs, offsets)
    problems = differences(redis, settings, expected)
    assert not problems, "\n".join(problems)
    return expected


def differences(redis: Any, settings: Settings, expected: Expected) -> list[str]:
    """One line for each difference of Redis from `expected`."""
    state = read_state(redis, settings)
    all_counters = _added(state.users, state.idle)
    first_seen = {user: fields.get("first_seen") for user, fields in all_counters.items()}
    counters = {
        user: {name: value for name, value in fields.items() if name != "first_seen"}
        for user, fields in all_counters.items()
    }
    result = _different("user", counters, expected.users)
    result += [
        f"first_seen of {user}: {when}, expected {sorted(expected.first_seen[user])}"
        for user, when in first_seen.items()
        if user in expected.users and when not in expected.first_seen[user]
    ][:_SHOWN]
    result += [
        (
            f"history of {user}: {state.histories.get(user, [])[-3:]} is no order of "
            f"{_tails(expected.histories.get(user, {}))}"
        )
        for user in sorted(state.histories.keys() | expected.histories.keys())
        if not is_merge(
            state.histories.get(user, []),
            list(expected.histories.get(user, {}).values()),
            # of a user who left, Redis has the lines since the return
            min(settings.history_cap, int(state.users.get(user, {}).get("events", 0)))
            if user in state.idle
            else settings.history_cap,
        )
    ][:_SHOWN]

    result += _different("profile", state.profiles, expected.profiles, is_one_of=True)
    result += _different("item", state.items, expected.items, is_one_of=True)
    result += _by_member("popular", state.popular, expected.popular, state.removed)
    result += _by_member("trending", state.trending, expected.trending)
    result += _by_member("experiment", state.experiments, expected.experiments)
    result += [
        f"trending:{bucket} expires in {left} s"
        for bucket, left in state.expiries.items()
        if not 0 < left < 8 * 24 * 3600
    ]
    result += [f"{key} is in a shard that must not have it" for key in state.misplaced[:_SHOWN]]
    return result


def _added(
    users: Mapping[str, Mapping[str, str]], idle: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """The counters of each user, those before the user left included."""
    added = {user: dict(fields) for user, fields in users.items()}
    for user, fields in idle.items():
        counters = added.setdefault(user, {})
        for name, value in fields.items():
            counters[name] = (
                value if name == "first_seen" else str(int(counters.get(name, "0")) + int(value))
            )
    return added


def _different(
    kind: str, actual: Mapping[str, Any], expected: Mapping[str, Any], *, is_one_of: bool = False
) -> list[str]:
    """Differences by key. `is_one_of`: `expected` has every correct value of a key."""
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
    removed: Mapping[str, float] | None = None,
) -> list[str]:
    """Differences by name and member. `removed`: by name, the most that a score may lack."""
    wrong = []
    for name in sorted(actual.keys() | expected.keys()):
        scores, right = actual.get(name, {}), expected.get(name, {})
        wrong += [
            f"{kind}:{name} {member}: {scores.get(member)}, expected {right.get(member)}"
            for member in sorted(scores.keys() | right.keys())
            if not 0
            <= right.get(member, 0.0) - scores.get(member, 0.0)
            <= (removed or {}).get(name, 0.0)
        ]
    return _cut(kind, wrong)


def _cut(kind: str, wrong: list[str]) -> list[str]:
    return (
        wrong
        if len(wrong) <= _SHOWN
        else [*wrong[:_SHOWN], f"{kind}: {len(wrong) - _SHOWN} more differences"]
    )


def is_merge(lines: list[str], parts: list[list[str]], cap: int) -> bool:
    """Whether `lines` are the latest `cap` lines of a merge of `parts`.

    A merge keeps the order within each part.
    """
    if len(lines) != min(cap, sum(map(len, parts))):
        return False
    # remaining lines of each part, for every merge that fits so far
    remaining = {tuple(map(len, parts))}
    for line in reversed(lines):
        remaining = {
            (*counts[:number], count - 1, *counts[number + 1 :])
            for counts in remaining
            for number, count in enumerate(counts)
            if count and parts[number][count - 1] == line
        }
    return bool(remaining)


def _tails(by_partition: Mapping[int, list[str]]) -> dict[int, list[str]]:
    return {partition: lines[-3:] for partition, lines in by_partition.items()}


Coordinates = tuple[str, int, int]


def dead_letters(
    settings: Settings, topics: Collection[str] | None = None
) -> list[tuple[Coordinates, str]]:
    """((topic, partition, offset), code) of every dead letter, duplicates included.

    `topics`: the source topics (None: all).
    """
    included = sources(settings) if topics is None else topics
    logs = RecordedLog(settings).read([settings.dlq_topic])
    letters = [
        {name: value.decode() for name, value in record.headers.items()}
        for partition in logs.partitions(settings.dlq_topic)
        for record in logs.of(partition)
    ]
    return [
        ((letter["topic"], int(letter["partition"]), int(letter["offset"])), letter["code"])
        for letter in letters
        if letter["topic"] in included
    ]


def dead_letter_differences(
    settings: Settings, expected: Expected, former: Mapping[Coordinates, str] | None = None
) -> list[str]:
    """Missing dead letters, and dead letters without a bad record.

    `former`: optional dead letters, of a topic that was deleted since.
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
