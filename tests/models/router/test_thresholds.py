"""The thresholds that a bundle prefers are read as they were written, or refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from core.errors import ModelCorrupt
from models.router.thresholds import FILE, NEVER, PreferredThresholds, named

BETTER = PreferredThresholds(
    preferred=(1, 3), configured=(5, 20), gain=0.4, low=0.31, high=0.48, users=250
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    BETTER.save(tmp_path)
    assert PreferredThresholds.load(tmp_path) == BETTER
    assert BETTER.better
    assert BETTER.recommended == (1, 3)


def test_a_gain_that_may_be_chance_recommends_the_configured_thresholds() -> None:
    chance = msgspec.structs.replace(BETTER, low=-0.01)
    assert not chance.better
    assert chance.recommended == (5, 20)


@pytest.mark.parametrize("wrong", [{"preferred": (3, 1)}, {"configured": (-1, 20)}])
def test_thresholds_that_are_out_of_order_are_refused(
    tmp_path: Path, wrong: dict[str, tuple[int, int]]
) -> None:
    msgspec.structs.replace(BETTER, **wrong).save(tmp_path)
    with pytest.raises(ModelCorrupt, match=rf"{FILE}: thresholds must be at least 0 and in order"):
        PreferredThresholds.load(tmp_path)


def test_a_threshold_that_nobody_reaches_is_named() -> None:
    assert named((1, NEVER)) == "1 and never"
