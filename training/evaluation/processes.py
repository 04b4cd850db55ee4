"""Calls a function for many inputs in several processes, which share the arrays that it reads.

The processes are started afresh, not forked: torch and BLAS have threads, and a fork copies the
locks that they hold. What all calls share is pickled once; its large arrays are written to a
temporary folder and mapped by every process, so that they are in memory once.
"""

from __future__ import annotations

import io
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import threadpoolctl

from core.errors import ConfigurationError, ProcessFailed
from core.process import logs

Shared = TypeVar("Shared")
Input = TypeVar("Input")
Output = TypeVar("Output")

START_S = 4.0
"""Seconds of processor time that further processes must save to be started: each needs two to
import what it uses. It is no wall time, because on a busy machine they would wait, too."""
FIRST_INPUTS = 8
"""Inputs that are computed in this process to estimate the time of all, by their median: the first
of them also fill caches. It is estimated again after 16, 32, ... inputs."""
CHUNK, CHUNKS = 64, 8
"""Most inputs that a process gets at once, and how often each process gets some at least, so that
all end at about the same time."""
MAPPED_BYTES = 1 << 16
"""Arrays from this size on are mapped; smaller ones are copied."""

_worker: dict[str, Any] = {}
"""In a process of the pool: the `function`, and what its calls have `shared`."""


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def mapped(
    function: Callable[[Shared, Input], Output],
    shared: Shared,
    inputs: Sequence[Input],
    processes: int,
) -> Iterator[Output]:
    """`function(shared, value)` of each of `inputs`, in their order.

    The first ones are computed in this process. The others are computed by up to `processes`
    processes (0: one for each usable core) when that saves START_S seconds. `function`: of a
    module; it raises in this process what it raises in another. Raises ProcessFailed when a process
    is killed, ConfigurationError when there is no space for the arrays.
    """
    count = processes or usable_cores()
    seconds: list[float] = []
    for place, value in enumerate(inputs):
        if count > 1 and place >= FIRST_INPUTS and place.bit_count() == 1:  # 8, 16, 32, ...
            left = statistics.median(seconds) * (len(inputs) - place)
            if left * (1 - 1 / count) > START_S:
                yield from _in_processes(function, shared, inputs[place:], count)
                return
        started = time.thread_time()
        result = function(shared, value)
        seconds.append(time.thread_time() - started)
        yield result


def _in_processes(
    function: Callable[[Shared, Input], Output],
    shared: Shared,
    inputs: Sequence[Input],
    count: int,
) -> Iterator[Output]:
    with tempfile.TemporaryDirectory(prefix="eddyline-") as folder:
        content = _pickled((function, shared), Path(folder))
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(count, context, initializer=_start, initargs=(content,))
        try:
            size = max(1, min(CHUNK, len(inputs) // (CHUNKS * count)))
            chunks = [inputs[start : start + size] for start in range(0, len(inputs), size)]
            for future in [pool.submit(_compute, chunk) for chunk in chunks]:
                yield from future.result()
        except BrokenProcessPool:
            raise ProcessFailed(
                "a process of the evaluation was killed, perhaps because memory ran out; "
                "EVALUATION_PROCESSES=1 needs the least"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _pickled(value: Any, folder: Path) -> bytes:
    """`value` pickled, with its large arrays as files in `folder`."""
    content = io.BytesIO()
    try:
        _Pickler(content, folder).dump(value)
    except OSError as error:
        raise ConfigurationError(
            f"{folder}: {error.strerror or error}; the processes of an evaluation share arrays "
            f"there: let TMPDIR name a folder with more space, or set EVALUATION_PROCESSES=1"
        ) from None
    return content.getvalue()


class _Pickler(pickle.Pickler):
    """Writes large arrays to files, which are mapped when they are unpickled."""

    def __init__(self, file: io.BytesIO, folder: Path) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._folder, self._files = folder, 0

    def reducer_override(self, value: Any) -> Any:
        """How to pickle `value`, where it is not as usual."""
        if isinstance(value, MappingProxyType):
            return _read_only, (dict(value),)
        if type(value) is np.ndarray and value.nbytes >= MAPPED_BYTES and not value.dtype.hasobject:
            self._files += 1
            path = self._folder / f"{self._files}.npy"
            np.save(path, value, allow_pickle=False)
            return _map_array, (path,)
        return NotImplemented


def _read_only(values: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(values)  # pickle cannot name the type


def _map_array(path: Path) -> np.ndarray[Any, Any]:
    # a plain array over the file: slices of a memmap object are slow
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _start(content: bytes) -> None:
    """Prepare a process of the pool."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent gets them too, and ends this one
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logs.configure("error", text=sys.stderr.isatty())
    _worker["function"], _worker["shared"] = pickle.loads(content)  # noqa: S301 - of the parent
    threadpoolctl.threadpool_limits(1, "blas")


def _end_with_parent() -> None:
    """End this process when its parent was killed: nobody would tell it to."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _compute(inputs: Sequence[Any]) -> list[Any]:
    function, shared = _worker["function"], _worker["shared"]
    return [function(shared, value) for value in inputs]
