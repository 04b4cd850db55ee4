"""Fixtures for the tests of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.registry import Registry


@pytest.fixture
def models(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "artifacts")
