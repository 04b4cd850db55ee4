"""An import that was killed goes on where Kafka has acknowledged it, and no event counts twice."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from core.dedup import Dedup
from core.errors import ConfigurationError
from core.settings import Settings
from store.log import client as log
from store.tables.options import Options
from streams.importers import progress_file
from streams.importers.command import Import
from streams.importers.plan import Plan
from streams.importers.progress_file import Progress
from testing.process import Child, settings_environment
from tests.streams.importers.world import import_command, run_import, sent, with_one_partition
from tests.support import eventually

ROWS = 150_000
HEADER = "user_id,item_id,event_type,timestamp\n"


@pytest.mark.process
@pytest.mark.parametrize("order", ["--sort", "--no-sort"])
def test_a_killed_import_goes_on_and_every_row_counts_once(
    broker: object, settings: Settings, tmp_path: Path, order: str
) -> None:
    one = with_one_partition(settings)
    path = tmp_path / "events.csv"
    with path.open("w") as file:
        file.write(HEADER)
        file.writelines(f"u{row % 997},i,view,{1_700_000_000 - row}\n" for row in range(ROWS))
        file.write(",i,view,1700000000\n")
    progress_path = progress_file.path_beside(tmp_path / "rejects.jsonl")
    command = import_command(path, order)
    child = Child("import", command, tmp_path, settings_environment(one)).start()

    def acknowledged() -> int:
        return progress_file.load(progress_path).acknowledged if progress_path.exists() else 0

    eventually(lambda: acknowledged() > 0, "a checkpoint", 60)
    child.kill()
    before = acknowledged()
    assert 0 < before < ROWS
    result = run_import(one, path, order, "--resume")
    assert result.returncode == 0, result.stderr
    dedup = Dedup(settings.dedup_window)
    ids = [str(event["event_id"]) for event in sent(one)]
    counted = Counter(
        event_id for offset, event_id in enumerate(ids) if not dedup.is_duplicate(event_id, offset)
    )
    assert (len(counted), set(counted.values())) == (ROWS, {1})
    assert len(ids) - ROWS <= progress_file.CHECKPOINT + 60_000, "what was under way, and no more"
    assert f"{before:,}" in result.stdout
    # the import has come to its end: it leaves no progress, and once more sends nothing
    assert not progress_path.exists()
    again = run_import(one, path, order, "--resume")
    assert (again.returncode, len(list(sent(one)))) == (1, len(ids))
    assert "there is nothing to resume" in again.stderr


def test_progress_of_another_source_or_other_options_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "events.csv"
    path.write_text(HEADER + "u1,a,view,1700000000\n")
    plan = Plan(path=path, resume=True, rejects=tmp_path / "rejects.jsonl")
    progress_path = progress_file.path_beside(plan.rejects)
    with pytest.raises(ConfigurationError, match=r"nothing to resume: .*rejects\.progress\.json"):
        Import(settings, plan)
    reader = Import(settings, msgspec.structs.replace(plan, resume=False)).reader
    same = progress_file.digest(settings, plan, reader)
    progress_file.save(progress_path, Progress("other.csv-0123", same, 1.0))
    with pytest.raises(ConfigurationError, match=r"belongs to an import of other\.csv-0123"):
        Import(settings, plan)
    progress_file.save(progress_path, Progress(reader.table.name, same, 1.0))
    Import(settings, plan)
    other = msgspec.structs.replace(plan, reading=Options(constants={"event_type": "like"}))
    with pytest.raises(ConfigurationError, match="import with other options"):
        Import(settings, other)
    with pytest.raises(ConfigurationError, match="name a file in a folder that can be written"):
        progress_file.save(tmp_path / "absent" / "rejects.progress.json", Progress("s", "o", 1.0))
    progress_path.write_text("{")
    with pytest.raises(ConfigurationError, match=r"cannot be read .* import without --resume"):
        Import(settings, plan)


@pytest.mark.process
def test_an_import_stopped_by_sigterm_resumes_at_the_very_row(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "events.csv"
    path.write_text(HEADER + "".join(f"u{row},i,view,{1_000 + row}\n" for row in range(40)))
    log.ensure_topics(settings)
    command = import_command(path, "--speed", "2x")
    child = Child("import", command, tmp_path, settings_environment(settings)).start()
    eventually(lambda: len(list(sent(settings))) >= 2, "some events", 60)
    child.signal(signal.SIGTERM)
    assert child.wait(30) == 0
    resumed = run_import(settings, path, "--speed", "1000x", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    users = [event["user_id"] for event in sent(settings)]
    assert sorted(users) == sorted({f"u{row}" for row in range(40)})
