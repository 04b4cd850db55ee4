"""An import that cannot work ends with one error that says what to change."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from core.errors import ConfigurationError, EddylineError, NothingImported, SourceFailed
from core.settings import Settings
from store.tables.options import Options
from streams.importers.command import Import
from streams.importers.plan import Plan


def test_a_wrong_option_or_source_is_one_clear_error(
    settings: Settings, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(
        ConfigurationError,
        match=r"user_id is mapped from no column; the source has a, b: give --map user_id=<column>",
    ):
        Import(settings, Plan(path=tmp_path / "log.csv"))
    with pytest.raises(ConfigurationError, match="no column 'c' for user_id"):
        Import(settings, Plan(path=tmp_path / "log.csv", reading=Options(mapping={"user_id": "c"})))
    with pytest.raises(ConfigurationError, match="'colour' is no field of interactions"):
        Import(settings, Plan(path=tmp_path / "log.csv", reading=Options(mapping={"colour": "a"})))
    with pytest.raises(ConfigurationError, match="is no file"):
        Import(settings, Plan(path=tmp_path / "absent.csv"))
    with pytest.raises(ConfigurationError, match="has no table 'absent'"):
        Import(settings, Plan(database=database, table="absent"))
    with pytest.raises(ConfigurationError, match="is no URL"):
        Import(settings, Plan(database="shop", table="t"))
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(SourceFailed, match=r"broken\.parquet cannot be read"):
        Import(settings, Plan(path=tmp_path / "broken.parquet"))
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigurationError, match="--database needs SQLAlchemy"):
        Import(settings, Plan(database=database, table="user_interactions"))


def test_a_file_with_only_invalid_rows_is_an_error(
    broker: object, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "ratings.dat").write_text("::1::5::978300760\n")
    with pytest.raises(NothingImported, match=r"1 rejected; see rejects\.jsonl"):
        Import(settings, Plan(path=tmp_path / "ratings.dat")).run()


def test_an_absent_broker_is_one_clear_error(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::978300760\n")
    quick = settings.model_copy(update={"kafka_timeout_s": 1.0})
    with pytest.raises(
        EddylineError,
        match=r"connecting for 1 s: .* is the broker up, and is KAFKA_BOOTSTRAP_SERVERS right\?",
    ):
        Import(quick, Plan(path=tmp_path / "ratings.dat")).run()
