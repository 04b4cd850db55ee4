"""A working directory for each test, and a database of a backend."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rejected rows are written to the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "create table user_interactions (id integer primary key, user_id int, item_id "
            "int, kind text, created_at timestamp)"
        )
        rows = [
            (
                number,
                number % 50,
                number % 7,
                "purchase",
                f"2026-01-01 00:{number // 60 % 60:02}:{number % 60:02}",
            )
            for number in range(3000)
        ]
        connection.executemany("insert into user_interactions values (?, ?, ?, ?, ?)", rows)
    connection.close()
    return f"sqlite:///{path}"
