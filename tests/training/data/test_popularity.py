"""Popularity of a dataset agrees with what ingest counts: by use case, with the default one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from core.settings import Settings
from core.types import Interaction
from store.state.apply.pending import Mark, PendingPopularity
from tests.training import world
from tests.training.world import row
from training.data.popularity import popular

CASES = ("developer_startup", "investor_startup", None)
FIELDS = ("event_id", "user_id", "item_id", "event_type", "timestamp", "use_case")


@pytest.mark.parametrize("default", CASES)
def test_a_dataset_and_ingest_count_every_event_in_the_same_use_case(
    settings: Settings, tmp_path: Path, default: str | None
) -> None:
    path = tmp_path / "use_cases.toml"
    section = f"[use_cases.{default}]\n"
    text = Path("core/use_cases.toml").read_text()
    path.write_text(text.replace(section, f"{section}default = true\n"))
    marked = settings.model_copy(update={"use_cases_path": path})
    rows = [
        row(number, "ann", f"i{number % 4}", "apply", use_case=CASES[number % 3])
        for number in range(24)
    ]
    trained = popular(world.built(marked, rows), marked).scores
    pending = PendingPopularity(marked.use_cases, marked.popularity_half_life_days, Mark())
    for number, fields in enumerate(rows):
        event = msgspec.convert({name: fields[name] for name in FIELDS}, Interaction)
        pending.add(number, event, event.timestamp)
    counted = {
        (name.removeprefix("popular:"), item_id): score
        for (name, item_id), score in pending.piece(len(rows), whole=True).sums
        if name.startswith("popular:")
    }
    assert counted == {
        (name, item_id): score for name, entries in trained.items() for item_id, score in entries
    }
    assert ("unlabelled" in trained) == (default is None)
