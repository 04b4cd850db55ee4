"""What the comparison with other stream processors relies on, without running them."""

from __future__ import annotations

import ast

import pytest

from benchmarks.peers import crash
from benchmarks.peers.counts import HISTORY, Event, State
from benchmarks.peers.events import check
from testing.process import ROOT
from tests.structure.tree import ROOMS

SENT = {"user-1": [Event("user-1", f"item-{at}", "view", 1.76e9 + at) for at in range(70)]}


def state_of(events: list[Event]) -> State:
    state = State({}, [])
    for event in events:
        state.add(event)
    return state


def test_a_state_has_the_latest_events_and_counts_all() -> None:
    state = state_of(SENT["user-1"])
    assert state.counts == {"view": 70}
    assert [item for _, _, item in state.history] == [
        f"item-{at}" for at in range(70 - HISTORY, 70)
    ]
    check("a processor", {"user-1": state}, SENT, whole=True)


@pytest.mark.parametrize("fault", ["lost", "twice", "reordered"])
def test_a_processor_that_counts_wrongly_is_no_result(fault: str) -> None:
    events = list(SENT["user-1"])
    if fault == "lost":
        del events[40]
    elif fault == "twice":
        events.insert(40, events[40])
    else:
        events[40], events[41] = events[41], events[40]
    with pytest.raises(RuntimeError, match="counts user-1 wrongly"):
        check("a processor", {"user-1": state_of(events)}, SENT, whole=True)


def test_a_part_of_the_events_is_a_result_only_while_it_is_their_beginning() -> None:
    begun = {"user-1": state_of(SENT["user-1"][:30])}
    check("a processor", begun, SENT, whole=False)
    with pytest.raises(RuntimeError):
        check("a processor", begun, SENT, whole=True)


def test_what_a_crash_lost_and_doubled_is_counted_by_user() -> None:
    sent = dict.fromkeys(("a", "b", "c"), SENT["user-1"])
    states = {
        "a": state_of(SENT["user-1"][:67]),
        "b": state_of([*SENT["user-1"], *SENT["user-1"][:2]]),
    }
    states["c"] = State({}, [])  # without events after the restart
    assert crash.compare(states, sent) == crash.Errors(users=2, sent=140, lost=3, twice=2)


@pytest.mark.parametrize("name", ["counts", "meter", "on_bytewax", "on_faust", "on_quix"])
def test_what_runs_under_the_peers_python_imports_nothing_of_the_rooms(name: str) -> None:
    tree = ast.parse((ROOT / "benchmarks" / "peers" / f"{name}.py").read_text())
    names = {
        module
        for node in ast.walk(tree)
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not {module.split(".")[0] for module in names} & {*ROOMS, "confluent_kafka"}
    own = {module for module in names if module.startswith("benchmarks")}
    assert own <= {"benchmarks.peers.counts", "benchmarks.peers.meter"}
