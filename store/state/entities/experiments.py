"""What became of experiments: outcomes, which ingest counts in the transactions of its batches, and
exposures, which the API notes.

An outcome is an event that carries the recommendation_id of an answer that its user can have got
(core.experiments). So outcomes are a function of the log and of the configured experiments, as
exact as counters are. An exposure is an answer given; it is in no log, only here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import msgspec
import redis

from core.codec import encode_json
from core.deletions import IdHasher
from core.experiments import Experiments, Variant
from core.types import Interaction
from core.use_cases import UseCases
from store.state import keys
from store.state.connection import named_errors

MOST_WAITING = 100_000
"""Answers that wait to be written: some 20 MB.

A second of reads is far from it while Redis answers.
"""
_CHUNK = 500
"""Exposures in one transaction: they hold Redis for about a millisecond."""
_PAGE = 2_000
"""Members in one reply of a scan."""


class Outcomes(NamedTuple):
    """What a batch adds: (variant's id, event type) -> events; (variant's id, user) -> weight of
    the user's events that are its outcomes.

    `events` counts those of users who were deleted since, too, as a sum over everyone does.
    """

    events: dict[tuple[str, str], int]
    users: dict[tuple[str, str], float]


def outcomes(
    experiments: Experiments,
    use_cases: UseCases,
    events: Iterable[tuple[Interaction, float]],
    deleted: Mapping[str, float],
) -> Outcomes:
    """The outcomes among `events` (interaction, broker time), by the default weights.

    `deleted`: user -> broker time of the deletion.
    """
    found = Outcomes({}, {})
    for event, broker_time in events:
        told = event.recommendation_id
        if told is None or (variant := experiments.shown(told, event.user_id)) is None:
            continue
        typed = (variant.id, event.event_type)
        found.events[typed] = found.events.get(typed, 0) + 1
        counts = not variant.outcomes or event.event_type in variant.outcomes
        weight = use_cases.weight(event.event_type, event.value) if counts else 0.0
        if weight and not (deleted and broker_time <= deleted.get(event.user_id, -1.0)):
            user = (variant.id, event.user_id)
            found.users[user] = found.users.get(user, 0.0) + weight
    return found


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """What a tag stands for, kept beside its numbers: the configuration may be gone when they are
    read. `since` in seconds since 1970.
    """

    name: str
    since: float
    use_cases: tuple[str, ...]
    variants: tuple[Variant, ...]


def save_definitions(client: redis.Redis, experiments: Experiments) -> None:
    """Note what each experiment's tag stands for, the first time. Raises StoreUnavailable."""
    if experiments.all:
        with named_errors("noting experiments"):
            pipe = client.pipeline(transaction=False)
            for tag, text in _notes(experiments).items():
                pipe.hsetnx(keys.EXPERIMENTS, tag, text)
            pipe.execute()


def definitions(client: redis.Redis) -> dict[str, Definition]:
    """Tag -> what it stands for, of every experiment that was ever configured and not forgotten.

    Raises StoreUnavailable.
    """
    with named_errors("reading experiments"):
        found: Any = client.hgetall(keys.EXPERIMENTS)
    return {tag.decode(): msgspec.json.decode(text, type=Definition) for tag, text in found.items()}


def sets_of_users(client: redis.Redis, running: Experiments) -> list[str]:
    """Every sorted set of an experiment that may hold a user: of those noted, and of the `running`
    ones, which a Redis that was emptied a moment ago may not have noted yet. Raises
    StoreUnavailable.
    """
    variants = {
        variant.id for experiment in definitions(client).values() for variant in experiment.variants
    } | set(running.by_id)
    return [key for variant_id in sorted(variants) for key in _sets(variant_id)]


def forget(client: redis.Redis, tag: str) -> bool:
    """Remove an experiment's numbers; False when there is none of that tag.

    Raises StoreUnavailable.
    """
    each = definitions(client).get(tag)
    if each is None:
        return False
    with named_errors(f"forgetting experiment {tag}"):
        pipe = client.pipeline(transaction=True)
        for variant in each.variants:
            pipe.unlink(keys.experiment_events(variant.id), *_sets(variant.id))
        pipe.hdel(keys.EXPERIMENTS, tag)
        pipe.execute()
    return True


class VariantCounts(NamedTuple):
    """One variant: user -> answers given; user -> weight of outcomes; event type -> events."""

    exposed: dict[str, float]
    outcomes: dict[str, float]
    events: dict[str, int]


def read(client: redis.Redis, variant_id: str) -> VariantCounts:
    """All that is counted of a variant, read in short pieces.

    Raises StoreUnavailable, StoreCorrupt.
    """
    with named_errors(f"reading the numbers of {variant_id}"):
        events: Any = client.hgetall(keys.experiment_events(variant_id))
        exposed, weights = (dict(_members(client, key)) for key in _sets(variant_id))
    return VariantCounts(
        exposed,
        weights,
        {name.decode().removeprefix("ev:"): int(count) for name, count in events.items()},
    )


class Exposures:
    """Answers given by variants, gathered here and written by `write`. Any thread may `add`; one at
    a time writes.

    A process that dies takes with it what was added since the last `write`.
    """

    def __init__(
        self, experiments: Experiments, most_users: int, lost: Callable[[], None], hasher: IdHasher
    ) -> None:
        """`most_users`: of one variant in Redis; who comes later is not noted.

        `lost` is called for an answer beyond MOST_WAITING.
        """
        self._notes, self._most_users, self._lost, self._hasher = (
            _notes(experiments),
            most_users,
            lost,
            hasher,
        )
        self._tags = {variant.id: variant.tag for variant in experiments.by_id.values()}
        self._given: deque[tuple[str, str]] = deque()
        self._unwritten: dict[tuple[str, str], int] = {}
        self._deletions: bytes | None = b""  # no version is empty: the first write looks

    def add(self, variant: Variant, user_id: str) -> None:
        """One answer of `variant` to a user."""
        if len(self._given) < MOST_WAITING:
            self._given.append((variant.id, user_id))
        else:
            self._lost()

    def write(self, client: redis.Redis) -> None:
        """Write what waits; what cannot be written waits on. Raises StoreUnavailable, StoreCorrupt.

        A lost answer of Redis leaves open whether it was written: then the answers given to these
        users may count twice, the users not.
        """
        for _ in range(min(len(self._given), MOST_WAITING - len(self._unwritten))):
            key = self._given.popleft()
            self._unwritten[key] = self._unwritten.get(key, 0) + 1
        with named_errors("writing exposures"):
            while self._unwritten:
                chunk = dict(islice(self._unwritten.items(), _CHUNK))
                self._write(client, chunk)
                for key in chunk:
                    del self._unwritten[key]

    def _write(self, client: Any, chunk: dict[tuple[str, str], int]) -> None:
        """One transaction.

        Users deleted since the last one stay out: their answers may have been given before.
        """
        variants = dict.fromkeys(variant_id for variant_id, _ in chunk)
        with client.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(keys.DELETIONS)
                    version = pipe.hget(keys.DELETIONS, "users")
                    gone: list[Any] = [None] * len(chunk)
                    if version != self._deletions:
                        gone = pipe.hmget(
                            keys.USERS_DELETED,
                            [self._hasher("user", user_id) for _, user_id in chunk],
                        )
                    full = {
                        each
                        for each in variants
                        if pipe.zcard(keys.experiment_exposed(each)) >= self._most_users
                    }
                    pipe.multi()
                    for variant_id in variants:
                        tag = self._tags[variant_id]
                        pipe.hsetnx(keys.EXPERIMENTS, tag, self._notes[tag])
                    for ((variant_id, user_id), answers), deleted in zip(
                        chunk.items(), gone, strict=True
                    ):
                        if deleted is None:
                            known = variant_id in full  # then only who stands there already
                            pipe.zadd(
                                keys.experiment_exposed(variant_id),
                                {user_id: answers},
                                incr=True,
                                xx=known,
                            )
                    pipe.execute()
                except redis.WatchError:
                    continue  # somebody was deleted just now
                self._deletions = version
                return


def _sets(variant_id: str) -> tuple[str, str]:
    return keys.experiment_exposed(variant_id), keys.experiment_outcomes(variant_id)


def _members(client: Any, key: str) -> Iterator[tuple[str, float]]:
    for member, score in client.zscan_iter(key, count=_PAGE):
        yield member.decode(), score


def _notes(experiments: Experiments) -> dict[str, bytes]:
    now = time.time()
    return {
        each.tag: encode_json(
            Definition(
                name=each.name, since=round(now), use_cases=each.use_cases, variants=each.variants
            )
        )
        for each in experiments.all
    }
