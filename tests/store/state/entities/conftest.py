"""Fixtures for tests of entities."""

from __future__ import annotations

import pytest

from core.settings import Settings
from tests.store.state.entities.experiment import Writer


@pytest.fixture
def writer(settings: Settings) -> Writer:
    return Writer(settings)
