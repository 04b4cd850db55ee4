"""The plan for large loads follows from what was measured, and its waiting times from a queue."""

from __future__ import annotations

import re

import msgspec
import numpy as np
import pytest

from benchmarks import scale_model
from benchmarks.measurements import RESULTS, Row
from benchmarks.scale_model import COSTS, plan, simulate
from testing.process import ROOT

PAGE = ROOT / "docs" / "scale.md"
ROWS = {row.name: row for row in msgspec.json.decode(RESULTS.read_bytes(), type=list[Row])}


def test_the_model_calculates_with_the_measured_costs() -> None:
    assert {name: ROWS[name].value for name in COSTS} == COSTS


def test_the_page_has_the_plan_that_the_model_prints() -> None:
    page = PAGE.read_text()
    assert "\n".join(scale_model.table()) in page
    assert scale_model.limits() in page


def test_the_page_has_every_measured_cost_as_it_was_measured() -> None:
    cells = dict(re.findall(r"^\| `([a-z0-9-]+)` \| ([\d,.]+) \|", PAGE.read_text(), re.MULTILINE))
    assert set(COSTS) <= set(cells)
    assert cells == {name: f"{ROWS[name].value:,.1f}" for name in cells}


def test_the_page_has_the_simulation_beside_what_was_measured() -> None:
    waits = simulate(plan(1_000_000, 5_000, 1_000.0))
    page = PAGE.read_text()
    for name, simulated in (("unit-applied", waits.p50_ms), ("unit-applied-p99", waits.p99_ms)):
        assert re.search(rf"^\| `{name}` \|.* \| {simulated:.1f} \|$", page, re.MULTILINE)


def test_the_readme_has_the_measured_memory_of_a_user() -> None:
    readme = (ROOT / "README.md").read_text()
    assert f"[{ROWS['redis-memory-per-user'].value:,.0f} bytes a user](docs/scale.md)" in readme


@pytest.mark.parametrize("rate", [10_000, 100_000, 1_000_000])
def test_no_process_of_a_plan_is_busier_than_planned(rate: int) -> None:
    """The plan assumes full transactions; the simulation counts those that the events make."""
    waits = simulate(plan(1_000_000, rate, 0.2 * rate), seconds=5)
    assert waits.ingest <= 1.2 * scale_model.UTILISATION
    assert waits.redis <= 1.2 * scale_model.UTILISATION
    assert waits.p50_ms < waits.p99_ms < 100


def test_events_wait_for_seconds_where_there_are_too_few_primaries() -> None:
    need = plan(1_000_000, 1_000_000, 0.0)
    few = need._replace(primaries=need.primaries // 4)
    assert simulate(few, seconds=5).p99_ms > 1_000 > 10 * simulate(need, seconds=5).p99_ms


def test_the_queue_waits_as_the_theory_says() -> None:
    """M/D/1: arrivals at random, equal service; the mean wait is service * u / 2(1 - u)."""
    rng, service, used = np.random.default_rng(7), 0.001, 0.7
    ready = np.cumsum(rng.exponential(service / used, 200_000))
    waits = scale_model.serve(ready, np.full(len(ready), service)) - ready - service
    assert waits.mean() == pytest.approx(service * used / (2 * (1 - used)), rel=0.05)
