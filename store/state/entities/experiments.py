"""Counts outcomes and exposures of experiments.

Ingest counts outcomes in the transactions of its batches. An outcome is an event with the
recommendation_id of an answer that its user can have received (core.experiments). So outcomes
follow from the log and from the configured experiments, and are as exact as counters. The API
counts exposures: answers of a variant to a user. They are only in Redis, in no log.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import ceil
from typing import Any, NamedTuple

import msgspec
import redis

from core.codec import encode_json
from core.deletions import IdHasher
from core.experiments import Definition, Experiments, Variant, VariantCounts
from core.use_cases import UseCases
from store.state import keys, shard_numbers
from store.state.apply.batches import Event, KnownDeletions
from store.state.connection import Client, named_errors
from store.state.shards import Shards, shard_of_user

MOST_WAITING = 100_000
"""Most exposures in the queue, about 20 MB.

While Redis answers, a second of reads adds far fewer.
"""
_CHUNK = 500
"""Exposures in one transaction, which takes Redis about a millisecond."""
_PAGE = 2_000
"""Members in one reply of a scan."""


class Outcomes(NamedTuple):
    """The outcomes of a batch.

    `events`: (variant id, event type) -> number; it is a sum over all users, so it keeps the events
    of users who are deleted later. `users`: (variant id, user) -> weight.
    """

    events: dict[tuple[str, str], int]
    users: dict[tuple[str, str], float]


def outcomes(
    experiments: Experiments,
    use_cases: UseCases,
    events: Iterable[Event],
    deletions: KnownDeletions,
) -> Outcomes:
    """The outcomes among `events`, by the default event weights."""
    numbers: dict[tuple[str, str], int] = {}
    weights: dict[tuple[str, str], float] = {}
    for event in events:
        user_id, event_type = event.interaction.user_id, event.interaction.event_type
        answer = event.interaction.recommendation_id
        if answer is None or (variant := experiments.variant_of_answer(answer, user_id)) is None:
            continue
        typed = (variant.id, event_type)
        numbers[typed] = numbers.get(typed, 0) + 1
        counts = not variant.outcomes or event_type in variant.outcomes
        weight = use_cases.weight(event_type, event.interaction.value) if counts else 0.0
        if weight and not deletions.cover(event):
            user = (variant.id, user_id)
            weights[user] = weights.get(user, 0.0) + weight
    return Outcomes(numbers, weights)


def save_definitions(first: Client, experiments: Experiments) -> None:
    """Store the definition of each experiment that has none yet. `first`: the client of shard 0.

    Raises StoreUnavailable.
    """
    if experiments.all:
        with named_errors("writing the definitions of experiments"):
            pipe = first.pipeline(transaction=False)
            for tag, text in _encoded(experiments).items():
                pipe.hsetnx(keys.of(first).experiments, tag, text)
            pipe.execute()


def definitions(first: Client) -> dict[str, Definition]:
    """Tag -> definition, of every experiment that was ever configured and not deleted since.

    `first`: the client of shard 0. Raises StoreUnavailable.
    """
    with named_errors("reading the definitions of experiments"):
        fields: Any = first.hgetall(keys.of(first).experiments)
    return {
        tag.decode(): msgspec.json.decode(text, type=Definition) for tag, text in fields.items()
    }


def recorded(shards: Shards) -> dict[str, Definition]:
    """As `definitions`, for readers of the numbers. Raises also as `shard_numbers.check`."""
    shard_numbers.check(shards.first)
    return definitions(shards.first)


def sets_of_users(first: Any, client: Any, running: Experiments) -> list[str]:
    """Every sorted set of an experiment in the shard of `client` that may hold a user.

    Those of the definitions, which `first` has, the client of shard 0, and of the `running`
    experiments, whose definitions are missing in a Redis that was just emptied. Raises
    StoreUnavailable.
    """
    variants = {
        variant.id for experiment in definitions(first).values() for variant in experiment.variants
    } | set(running.by_id)
    return [key for variant_id in sorted(variants) for key in _sets(client, variant_id)]


def forget(shards: Shards, tag: str) -> bool:
    """Delete an experiment's numbers in each shard, its definition last.

    False: there is no experiment with this tag. Raises as `recorded`; StoreUnavailable: repeat it.
    """
    experiment = recorded(shards).get(tag)
    if experiment is None:
        return False
    with named_errors(f"deleting the numbers of experiment {tag}"):
        for client in shards:
            pipe = client.pipeline(transaction=True)
            for variant in experiment.variants:
                pipe.unlink(
                    keys.of(client).experiment_events(variant.id), *_sets(client, variant.id)
                )
            pipe.execute()
        shards.first.hdel(keys.of(shards.first).experiments, tag)
    return True


def read(shards: Iterable[Client], variant_id: str) -> VariantCounts:
    """All numbers of a variant, read in short pieces.

    Raises StoreUnavailable, StoreCorrupt.
    """
    events: Counter[str] = Counter()
    exposed: dict[str, float] = {}
    weights: dict[str, float] = {}
    with named_errors(f"reading the numbers of {variant_id}"):
        for client in shards:
            stored: Any = client.hgetall(keys.of(client).experiment_events(variant_id))
            events.update({name.decode(): int(count) for name, count in stored.items()})
            exposed_set, outcomes_set = _sets(client, variant_id)
            exposed.update(_members(client, exposed_set))
            weights.update(_members(client, outcomes_set))
    return VariantCounts(
        exposed, weights, {name.removeprefix("ev:"): count for name, count in events.items()}
    )


class Exposures:
    """Collects exposures; `write` writes them to Redis.

    Any thread may call `add`, one thread at a time `write`. A process that dies loses the exposures
    since its last `write`.
    """

    def __init__(
        self,
        experiments: Experiments,
        most_users: int,
        lost: Callable[[], None],
        hasher: IdHasher,
        shards: int = 1,
    ) -> None:
        """`most_users`: of one variant in Redis; later users are not counted.

        `lost` is called for each exposure that is dropped because MOST_WAITING are in the queue.
        """
        self._definitions = _encoded(experiments)
        self._most_users, self._lost, self._hasher = ceil(most_users / shards), lost, hasher
        self._tags = {variant.id: variant.tag for variant in experiments.by_id.values()}
        self._queue: deque[tuple[str, str]] = deque()
        self._unwritten: list[dict[tuple[str, str], int]] = [{} for _ in range(shards)]
        self._defined = False
        self._deletions_versions: list[bytes | None] = [b""] * shards  # no version is empty

    def add(self, variant: Variant, user_id: str) -> None:
        """Add one exposure of a user to `variant`."""
        if len(self._queue) < MOST_WAITING:
            self._queue.append((variant.id, user_id))
        else:
            self._lost()

    def write(self, client: Client) -> None:
        """Write the exposures of the client's shard; after an error the next call writes the rest.

        The definitions are in shard 0, and are written before: call it for shard 0 first. If the
        reply of Redis is lost, the same exposures are written again: they may count twice, their
        users do not. Raises StoreUnavailable, StoreCorrupt.
        """
        shard = keys.of(client)
        self._divide()
        unwritten = self._unwritten[shard.shard]
        with named_errors("writing exposures"):
            if shard.shards > 1 and shard.shard == 0:
                self._define(client)
            while unwritten and (shard.shards == 1 or self._defined):
                chunk = dict(islice(unwritten.items(), _CHUNK))
                self._write(client, chunk)
                for key in chunk:
                    del unwritten[key]

    def _divide(self) -> None:
        """Move the queue to the exposures of each shard."""
        waiting = sum(map(len, self._unwritten))
        for _ in range(min(len(self._queue), MOST_WAITING - waiting)):
            key = self._queue.popleft()
            unwritten = self._unwritten[shard_of_user(key[1], len(self._unwritten))]
            unwritten[key] = unwritten.get(key, 0) + 1

    def _define(self, client: Client) -> None:
        """Write the definitions if there is an exposure of any shard to write."""
        self._defined = False
        if any(self._unwritten):
            pipe = client.pipeline(transaction=False)
            for tag, text in self._definitions.items():
                pipe.hsetnx(keys.of(client).experiments, tag, text)
            pipe.execute()
            self._defined = True

    def _write(self, client: Any, chunk: dict[tuple[str, str], int]) -> None:
        """Write a chunk in one transaction.

        Users who were deleted since the last transaction are left out, because the exposure may be
        older than the deletion.
        """
        shard = keys.of(client)
        variants = dict.fromkeys(variant_id for variant_id, _ in chunk)
        with client.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(shard.deletions)
                    version = pipe.hget(shard.deletions, "users")
                    places: list[Any] = [None] * len(chunk)
                    if version != self._deletions_versions[shard.shard]:
                        places = pipe.hmget(
                            shard.users_deleted,
                            [self._hasher("user", user_id) for _, user_id in chunk],
                        )
                    full = {
                        variant_id
                        for variant_id in variants
                        if pipe.zcard(shard.experiment_exposed(variant_id)) >= self._most_users
                    }
                    pipe.multi()
                    for variant_id in variants if shard.shards == 1 else ():
                        tag = self._tags[variant_id]
                        pipe.hsetnx(shard.experiments, tag, self._definitions[tag])
                    for ((variant_id, user_id), answers), deletion in zip(
                        chunk.items(), places, strict=True
                    ):
                        if deletion is None:
                            pipe.zadd(
                                shard.experiment_exposed(variant_id),
                                {user_id: answers},
                                incr=True,
                                xx=variant_id in full,  # only users who are already in the set
                            )
                    pipe.execute()
                except redis.WatchError:
                    continue  # a user was deleted just now
                self._deletions_versions[shard.shard] = version
                return


def _sets(client: Client, variant_id: str) -> tuple[str, str]:
    names = keys.of(client)
    return names.experiment_exposed(variant_id), names.experiment_outcomes(variant_id)


def _members(client: Any, key: str) -> Iterator[tuple[str, float]]:
    for member, score in client.zscan_iter(key, count=_PAGE):
        yield member.decode(), score


def _encoded(experiments: Experiments) -> dict[str, bytes]:
    now = time.time()
    return {
        experiment.tag: encode_json(
            Definition(
                name=experiment.name,
                since=round(now),
                use_cases=experiment.use_cases,
                variants=experiment.variants,
            )
        )
        for experiment in experiments.all
    }
