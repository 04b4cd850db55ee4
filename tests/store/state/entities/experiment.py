"""Has an experiment, its users, and a writer of their events, for tests of experiments."""

from __future__ import annotations

from pydantic import SecretStr

from core import experiments, use_cases
from core.deletions import IdHasher
from core.experiments import Variant
from core.settings import Settings
from core.types import Interaction
from store.state import connection
from store.state.apply import deletions
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, Event, OffsetRange
from store.state.apply.planner import Planner
from store.state.entities import experiments as store
from tests.support import delete_user

TOML = """
[experiments.blend]
users = [0.0, 0.5]
variants = { control = {}, half = { ensemble_als_weight = 0.5 } }
"""
HASHER = IdHasher(SecretStr(""))
RUNNING = experiments.parse(TOML, use_cases.load(None))
CONTROL, HALF = RUNNING.all[0].variants


def _users(variant: Variant | None, count: int) -> list[str]:
    every = (f"user:{number}" for number in range(100_000))
    return [user for user in every if RUNNING.assign(user, None) is variant][:count]


A, B = _users(CONTROL, 2)
(C,) = _users(HALF, 1)
(OUTSIDE,) = _users(None, 1)


def event(
    user: str, event_type: str, answer: str | None, value: float | None = None
) -> Interaction:
    return Interaction("e", user, "i", event_type, 1.0, value, recommendation_id=answer)


class Writer:
    """Applies events and deletions in turn, as ingest does."""

    def __init__(
        self,
        settings: Settings,
        running: experiments.Experiments = RUNNING,
        position: int = 0,
    ) -> None:
        self._planner = Planner(settings.use_cases, running)
        self._client = connection.connect(settings)
        self._applier = Applier(self._client, self._planner, 50, HASHER)
        self._settings = settings
        deletions.mark_ready(self._client)
        self.position, self._users_position = position, 0
        store.save_definitions(self._client, running)

    def apply(self, *events: Interaction, broker_time: float = 10.0) -> None:
        stamped = [Event(event, broker_time) for event in events]
        batch = self._planner.plan(
            OffsetRange("t", 0, self.position, self.position + len(events)),
            stamped,
            UNKNOWN_DELETIONS,
        )
        self._applier.apply(batch)
        self.position = batch.offsets.next

    def delete(self, user: str, broker_time: float) -> None:
        delete_user(self._settings, user, broker_time, self._users_position)
        self._users_position += 1


def fail_on_loss() -> None:
    """For `Exposures`: fail when an exposure is dropped."""
    raise AssertionError("an exposure is dropped")
