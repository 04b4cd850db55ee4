"""Applies one batch at a time, for tests of errors."""

from __future__ import annotations

import pytest

from core.deletions import IdHasher
from core.errors import StoreError
from core.settings import Settings
from core.types import Interaction
from store.state import connection
from store.state.apply.applier import Applier
from store.state.apply.batches import UNKNOWN_DELETIONS, Batch, Event, OffsetRange
from store.state.apply.entries import EntryBatch
from store.state.apply.entry_applier import EntryApplier
from store.state.apply.planner import Planner
from tests.support import NoLaterEvents

NOW = 1.76e9


class Writer:
    """Applies one event a batch to partition 0 of topic `t`."""

    def __init__(self, settings: Settings) -> None:
        self.planner = Planner(settings.use_cases)
        self.applier = Applier(
            connection.connect(settings), self.planner, 50, IdHasher(settings.deletion_salt)
        )
        self.entries = EntryApplier(
            connection.connect(settings),
            Planner(settings.use_cases),
            50,
            lambda _published: None,
            NoLaterEvents(),
        )

    def apply(self, batch: Batch | EntryBatch) -> None:
        if isinstance(batch, Batch):
            self.applier.apply(batch)
        else:
            self.entries.apply(batch)

    def event(self, first: int) -> Batch:
        events = [Event(Interaction(f"e{first}", "42", "startup-9", "view", NOW), NOW)]
        return self.planner.plan(OffsetRange("t", 0, first, first + 1), events, UNKNOWN_DELETIONS)

    def error(self, batch: Batch | EntryBatch) -> StoreError:
        with pytest.raises(StoreError) as raised:
            self.apply(batch)
        self.applier.close()
        return raised.value
