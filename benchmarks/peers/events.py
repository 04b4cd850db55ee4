"""The events that all processors read, and the state that some users must have after them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator

from benchmarks.peers.counts import Event, State
from core.settings import Settings
from core.types import Interaction
from store.log.producer import Producer

USERS, ITEMS = 10_000, 10_000
SAMPLES = tuple(f"user-{number}" for number in range(20))
_TYPES = ["view"] * 7 + ["click"] * 2 + ["like"]


def interactions(count: int, seed: int = 1) -> Iterator[Interaction]:
    """Random events of evenly drawn users on items of which some are drawn more often; some 150
    bytes of JSON each, those of the last minutes. Another seed has other ids of events.
    """
    pick, began = random.Random(seed), time.time()
    for number in range(count):
        yield Interaction(
            event_id=f"{pick.getrandbits(64):016x}",
            user_id=f"user-{pick.randrange(USERS)}",
            item_id=f"startup-{int(ITEMS * pick.random() ** 2)}",
            event_type=pick.choice(_TYPES),
            timestamp=began + (number - count) / 1000,
            use_case="developer_startup",
        )


def produce(
    settings: Settings, count: int, samples: Iterable[str] = SAMPLES
) -> dict[str, list[Event]]:
    """Send `count` events to the topic; the events of `samples`, in order."""
    sent: dict[str, list[Event]] = {user: [] for user in samples}
    with Producer(settings) as producer:
        for event in interactions(count):
            producer.interaction(event)
            if event.user_id in sent:
                sent[event.user_id].append(
                    Event(event.user_id, event.item_id, event.event_type, event.timestamp)
                )
    return sent


def check(name: str, samples: dict[str, State], sent: dict[str, list[Event]], whole: bool) -> None:
    """Raises RuntimeError unless every state is that of its user's first events, in order; of all
    of them if `whole`.
    """
    for user, events in sent.items():
        state = samples[user]
        number = sum(state.counts.values())
        expected = State({}, [])
        for event in events[:number]:
            expected.add(event)
        if state != expected or (whole and number != len(events)):
            raise RuntimeError(f"{name} counts {user} wrongly: {state}, not {expected}")
