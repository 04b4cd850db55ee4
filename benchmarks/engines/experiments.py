"""Measures what experiments cost a read and ingest: `python -m benchmarks.experiments`.

One thread, processor time, the best of many short runs. A read: draw the variant, make its id,
record the exposure, on top of the plain id that every answer has. Ingest: plan a transaction of 500
events that follow answers of an experiment, against the same events without ids. Redis is not
included: an outcome costs it one ZINCRBY for each user and transaction.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import msgspec
from pydantic import SecretStr

from benchmarks.measurements import record
from core import experiments
from core.deletions import IdHasher
from core.experiments import NONE, recommendation_id
from core.settings import Settings
from core.types import Interaction
from store.state.apply.batches import UNKNOWN_DELETIONS, Event, OffsetRange
from store.state.apply.planner import Planner
from store.state.entities.experiments import Exposures

COMMAND = "python -m benchmarks.experiments"
TOML = """
[experiments.one]
users = [0.0, 0.5]
variants = { control = {}, other = {} }

[experiments.two]
users = [0.5, 1.0]
variants = { control = {}, other = {} }
"""
USERS = [f"user-{number}" for number in range(1000)]


def microseconds(call: Callable[[], object], parts: int, repeats: int = 300) -> float:
    """Of one of the `parts` that a call is made of."""
    best = float("inf")
    for _ in range(repeats):
        began = time.thread_time()
        call()
        best = min(best, time.thread_time() - began)
    return best / parts * 1e6


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    use_cases = Settings().use_cases
    running = experiments.parse(TOML, use_cases)

    def within() -> None:
        exposures = Exposures(running, 1, lambda: None, IdHasher(SecretStr("")))
        for user in USERS:
            variant = running.assign(user, None)
            recommendation_id(variant)
            assert variant is not None
            exposures.add(variant, user)

    def without() -> None:
        for user in USERS:
            NONE.assign(user, None)
            recommendation_id(None)

    more = microseconds(within, len(USERS)) - microseconds(without, len(USERS))
    print(record("experiment-read", more, "us", "3 us, the target", 3.0, COMMAND))

    pick = random.Random(1)
    users = [f"user-{pick.randrange(20_000)}" for _ in range(500)]
    plain = [
        Interaction(str(at), user, f"startup-{at}", "view", 1.7e9) for at, user in enumerate(users)
    ]
    with_ids = [
        msgspec.structs.replace(
            event, recommendation_id=recommendation_id(running.assign(event.user_id, None))
        )
        for event in plain
    ]

    def planning(planner: Planner, interactions: list[Interaction]) -> Callable[[], object]:
        events = [Event(interaction, 1.7e9) for interaction in interactions]
        return lambda: planner.plan(OffsetRange("t", 0, 0, 500), events, UNKNOWN_DELETIONS)

    counted, bare = (
        microseconds(planning(Planner(use_cases, running), events), 500)
        for events in (with_ids, plain)
    )
    off = microseconds(planning(Planner(use_cases), with_ids), 500)
    print(
        record("experiment-ingest", counted, "us an event", "the same without ids", bare, COMMAND)
    )
    print(
        record(
            "experiment-ingest-off",
            off,
            "us an event",
            "no id, experiments configured",
            bare,
            COMMAND,
        )
    )


if __name__ == "__main__":
    main()
