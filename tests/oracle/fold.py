"""Computes the state that must follow from the logs.

An interaction counts if it is valid, is in a partition of its user's shard, is no duplicate within
the window of its partition, and has a later broker time than every deletion of its user (a null
record in `users`). A user's profile is the last valid record of the user after the last deletion;
the same holds for an item. Popularity, trending and the sums of experiments keep the events of
deleted users. Records of aborted transactions are not part of a log.

The records of a user may lie in several partitions, because partitions were added. Then only the
order within each partition is defined, and any order between partitions is correct. So the expected
history is a list of lines for each partition, and the expected profile a list of correct ones.
"""

from __future__ import annotations

import functools
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from core import codec
from core.contract.times import check_record_time
from core.errors import BadEvent
from core.experiments import point
from core.settings import Settings
from core.types import Interaction, Item, User
from store.state.entities import popularity
from store.state.shards import shard_of_user
from tests.oracle.records import Partition, Record, RecordedLog

Entry = TypeVar("Entry", Item, User)


class Expected:
    """The expected state of Redis.

    `users`: user -> counters without `first_seen`; `first_seen`: user -> correct times;
    `histories`: user -> partition -> all lines, oldest first; `profiles`, `items`: id -> correct
    entries; `dead`: coordinates of a dead letter -> its code.
    """

    def __init__(self) -> None:
        self.users: dict[str, dict[str, str]] = {}
        self.first_seen: dict[str, set[str]] = defaultdict(set)
        self.histories: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        self.profiles: dict[str, list[User]] = {}
        self.items: dict[str, list[Item]] = {}
        self.popular: dict[str, dict[str, float]] = {}
        self.trending: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.experiments: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.dead: dict[tuple[str, int, int], str] = {}
        self.deleted: dict[str, float] = {}
        self.counted = self.duplicates = self.skipped = 0
        """Events that count, duplicates, and events older than a deletion of their user."""


def fold(
    settings: Settings, logs: RecordedLog, positions: Mapping[Partition, int] | None = None
) -> Expected:
    """Fold `logs` up to `positions` (None: up to their ends; default position 0).

    Deletions count regardless of the position of `users`, because Redis learns of them through
    their own topic earlier.
    """
    expected = Expected()

    def end(partition: Partition) -> int | None:
        return None if positions is None else positions.get(partition, 0)

    expected.profiles = _entries(
        expected,
        settings.users_topic,
        settings.redis_shards,
        logs,
        end,
        partial(codec.decode_user, tolerance=settings.tolerance),
    )
    expected.items = _entries(
        expected,
        settings.items_topic,
        1,
        logs,
        end,
        partial(codec.decode_item, tolerance=settings.tolerance),
    )
    expected.deleted = _deletions(logs, settings.users_topic, settings.redis_shards)
    _interactions(expected, settings, logs, end)
    return expected


End = Callable[[Partition], int | None]
Decode = Callable[[bytes, float], Entry]


def _entries(
    expected: Expected,
    topic: str,
    shards: int,
    logs: RecordedLog,
    end: End,
    decode: Decode[Entry],
) -> dict[str, list[Entry]]:
    """Id -> the last entry of each partition that is later than every deletion of the id."""
    last: dict[str, dict[int, tuple[float, Entry]]] = defaultdict(dict)
    deleted: dict[str, dict[int, float]] = defaultdict(dict)
    for partition in logs.partitions(topic):
        for record in logs.of(partition, end(partition)):
            try:
                check_record_time(record.time)
                identifier = codec.decode_id(record.key)
                _check_shard(identifier, record, shards)
                if record.value is None:
                    deleted[identifier][record.partition] = record.time
                    last[identifier].pop(record.partition, None)
                else:
                    last[identifier][record.partition] = (
                        record.time,
                        codec.require_key(decode(record.value, record.time), identifier),
                    )
            except BadEvent as bad:
                expected.dead[record.topic, record.partition, record.offset] = bad.code
    valid = {
        identifier: [
            entry
            for partition, (when, entry) in by_partition.items()
            if all(when > at for other, at in deleted[identifier].items() if other != partition)
        ]
        for identifier, by_partition in last.items()
    }
    return {identifier: entries for identifier, entries in valid.items() if entries}


def _deletions(logs: RecordedLog, topic: str, shards: int) -> dict[str, float]:
    """Id -> time of its last deletion."""
    deleted: dict[str, float] = {}
    for partition in logs.partitions(topic):
        for record in logs.of(partition):
            if record.value is None:
                try:
                    check_record_time(record.time)
                    identifier = codec.decode_id(record.key)
                    _check_shard(identifier, record, shards)
                except BadEvent:
                    continue
                deleted[identifier] = max(record.time, deleted.get(identifier, 0.0))
    return deleted


def _check_shard(user_id: str, record: Record, shards: int) -> None:
    """Raises BadEvent: the partition is of another shard than the user."""
    if shard_of_user(user_id, shards) != record.partition % shards:
        raise BadEvent("foreign_partition", "another shard")


def _interactions(expected: Expected, settings: Settings, logs: RecordedLog, end: End) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    scores: dict[str, dict[str, Fraction]] = defaultdict(lambda: defaultdict(Fraction))
    now = time.time()
    for partition in logs.partitions(settings.interactions_topic):
        first_seen: dict[str, str] = {}
        for record, event in _without_duplicates(
            expected, settings, logs.of(partition, end(partition))
        ):
            _popularity(expected, settings, event, record.time, scores, now)
            variant_id = _variant_id(settings, event)
            if variant_id:
                expected.experiments[f"{variant_id}:events"][f"ev:{event.event_type}"] += 1
            if record.time <= expected.deleted.get(event.user_id, -1.0):
                expected.skipped += 1
                continue
            expected.counted += 1
            weight = settings.use_cases.weight(event.event_type, event.value)
            if (
                variant_id
                and weight
                and event.event_type
                in (settings.experiments.by_id[variant_id].outcomes or [event.event_type])
            ):
                expected.experiments[f"{variant_id}:outcomes"][event.user_id] += weight
            counts[event.user_id][event.event_type] += 1
            first_seen.setdefault(event.user_id, str(int(event.timestamp)))
            kind = (
                event.event_type
                if event.value is None
                else f"{event.event_type}={_plain(event.value)}"
            )
            expected.histories[event.user_id][record.partition].append(
                f"{int(event.timestamp)} {kind} {event.item_id}"
            )
        for user_id, when in first_seen.items():
            expected.first_seen[user_id].add(when)
    for user_id, by_type in counts.items():
        counters = {f"ev:{name}": str(count) for name, count in by_type.items()}
        expected.users[user_id] = {"events": str(sum(by_type.values())), **counters}
    expected.popular = {
        name: {item: float(score) for item, score in items.items()}
        for name, items in scores.items()
    }


def _without_duplicates(
    expected: Expected, settings: Settings, records: list[Record]
) -> list[tuple[Record, Interaction]]:
    """The valid events of one partition that are no duplicates."""
    latest: dict[str, int] = {}
    events = []
    for record in records:
        try:
            event = codec.decode_interaction(
                record.value, record.time, settings.use_cases, settings.tolerance
            )
            _check_shard(event.user_id, record, settings.redis_shards)
        except BadEvent as bad:
            expected.dead[record.topic, record.partition, record.offset] = bad.code
            continue
        before = latest.get(event.event_id)
        latest[event.event_id] = record.offset
        if before is not None and record.offset - before <= settings.dedup_window:
            expected.duplicates += 1
        else:
            events.append((record, event))
    return events


def _popularity(
    expected: Expected,
    settings: Settings,
    event: Interaction,
    broker_time: float,
    scores: Any,
    now: float,
) -> None:
    use_case = event.use_case or _default_use_case(settings)
    weight = settings.use_cases.weight(event.event_type, event.value, use_case)
    if not weight:
        return
    name = use_case or "unlabelled"
    scores[name][event.item_id] += Fraction(weight) * Fraction(
        popularity.growth(event.timestamp, settings.popularity_half_life_days)
    )
    happened = min(event.timestamp, broker_time)
    for length, window in ((300, 3600), (3600, 7 * 24 * 3600)):
        begin = int(happened // length) * length
        if broker_time - happened < window and begin + length + window + 3600 > now:
            expected.trending[f"{name}:{length}:{begin}"][event.item_id] += weight


def _default_use_case(settings: Settings) -> str | None:
    """Read from the configuration itself: the only use case, or the one that is marked."""
    path = settings.use_cases_path or Path("core/use_cases.toml")
    return _default_in(path.read_text("utf-8"))


@functools.cache  # else the text is parsed for every event
def _default_in(text: str) -> str | None:
    sections = tomllib.loads(text).get("use_cases", {})
    marked = [name for name, fields in sections.items() if fields.get("default")]
    only = list(sections) if len(sections) == 1 else marked
    return only[0] if only else None


def _variant_id(settings: Settings, event: Interaction) -> str | None:
    """Id of the variant whose answer led to an event, if the user is assigned to that variant."""
    _, dot, label = (event.recommendation_id or "").partition(".")
    for experiment in settings.experiments.all:
        low, high = experiment.users
        if (
            dot
            and low <= point("", event.user_id) < high
            and experiment.variant_of(event.user_id).id == label
        ):
            return label
    return None


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
