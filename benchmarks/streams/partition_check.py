"""Measures the check for events in foreign partitions: `python -m benchmarks.partition_check`.

Prints the processor time of one event. 200,000 events in batches of 250, each in the partition that
murmur2 computes, as ingest passes them to the check. In the first round the users are new to the
check; later it knows them.
"""

from __future__ import annotations

import argparse
import random
import time
from types import SimpleNamespace
from typing import Any

from core.murmur2 import partitions_of
from core.types import Interaction
from store.log.topics.partitions import Layout
from store.state.apply.batches import Event
from streams.ingest.foreign_partitions import ForeignPartitions

PARTITIONS, BATCHES, BATCH = 4, 800, 250
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    users = [f"user-{number}" for number in range(parser.parse_args().users)]
    of_partition: list[list[str]] = [[] for _ in range(PARTITIONS)]
    for user, partition in zip(
        users, partitions_of([user.encode() for user in users], PARTITIONS).tolist(), strict=True
    ):
        of_partition[partition].append(user)
    pick = random.Random(3)
    batches = []
    for batch in range(BATCHES):
        names = pick.choices(of_partition[batch % PARTITIONS], k=BATCH)
        batches.append(
            [
                Event(Interaction(f"e{at}", name, "startup-1", "view", 1.76e9), 1.76e9)
                for at, name in enumerate(names)
            ]
        )
    watch: Any = SimpleNamespace(layout=Layout(PARTITIONS, 0.0), answered_at=0.0)
    unused: Any = None
    check = ForeignPartitions(unused, "interactions", watch)
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for number, events in enumerate(batches):
            check.add(number % PARTITIONS, events)
            check.check()
        seconds.append(time.process_time() - began)
    first, *later = (round_s / (BATCHES * BATCH) * 1e6 for round_s in seconds)
    print(f"{first:.2f} us an event of the first round, {min(later):.2f} of the best later one")


if __name__ == "__main__":
    main()
