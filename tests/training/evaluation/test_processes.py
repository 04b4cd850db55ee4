"""Several processes compute what one would, and leave nothing behind.

The processes import this module, so it imports little.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from core.errors import ModelError, ProcessFailed
from testing.process import Child
from tests.support import eventually
from training.evaluation import processes

INPUTS = processes.FIRST_INPUTS + 64
RUN_UNTIL_KILLED = """
from tests.training.evaluation import test_processes as test
test.processes.START_S = -1.0
list(test.processes.mapped(test.wait, None, list(range(test.INPUTS)), 2))
"""


def describe(shared: np.ndarray[Any, Any], value: int) -> tuple[int, int, bool, float]:
    """The process, `value`, whether the shared array can be written to, and its sum."""
    return os.getpid(), value, shared.flags.writeable, float(shared.sum())


def fail(shared: int, value: int) -> int:
    if value == shared:
        raise ModelError(f"no answer to {value}")
    return value


def die(shared: int, value: int) -> int:
    if value == shared:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def wait(_: None, value: int) -> int:
    if value >= processes.FIRST_INPUTS:
        signal.pause()
    return value


@pytest.fixture
def at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Other processes are started for the smallest work, and share the smallest arrays."""
    monkeypatch.setattr(processes, "START_S", -1.0)
    monkeypatch.setattr(processes, "MAPPED_BYTES", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert not list(tmp_path.glob("eddyline-*")), "the shared arrays are deleted"


@pytest.mark.usefixtures("at_once")
def test_processes_answer_in_order_and_share_their_arrays() -> None:
    array = np.arange(1000.0)
    results = list(processes.mapped(describe, array, list(range(INPUTS)), 2))
    pids, values, writeable, sums = (list(column) for column in zip(*results, strict=True))
    assert values == list(range(INPUTS))
    first, others = pids[: processes.FIRST_INPUTS], pids[processes.FIRST_INPUTS :]
    assert {*first} == {os.getpid()}
    assert os.getpid() not in others
    assert not any(writeable[processes.FIRST_INPUTS :]), "it is a map of the file, no copy"
    assert {*sums} == {float(array.sum())}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("function", "error", "message"),
    [(fail, ModelError, "no answer to 20"), (die, ProcessFailed, "EVALUATION_PROCESSES=1")],
)
def test_an_error_or_a_killed_process_ends_the_evaluation(
    function: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(processes.mapped(function, 20, list(range(INPUTS)), 2))


def test_short_work_starts_no_process() -> None:
    results = processes.mapped(describe, np.zeros(1), list(range(INPUTS)), 2)
    assert {pid for pid, *_ in results} == {os.getpid()}


@pytest.mark.skipif(sys.platform != "linux", reason="children are listed by Linux")
def test_the_processes_of_a_killed_evaluation_end(tmp_path: Path) -> None:
    evaluation = Child("evaluation", [sys.executable, "-c", RUN_UNTIL_KILLED], tmp_path)
    with evaluation:
        # one of multiprocessing's own, and the pool
        children = eventually(
            lambda: (
                running if len(running := psutil.Process(evaluation.pid).children()) >= 3 else None
            ),
            "processes of the pool",
            60,
        )
        os.kill(evaluation.pid, signal.SIGKILL)
        gone, alive = psutil.wait_procs(children, 30)
        assert not alive
        assert gone
