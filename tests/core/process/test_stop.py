"""SIGTERM ends a process in time whatever its threads are doing."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from testing.process import ROOT

IN_A_LIBRARY = """
mutex = ctypes.create_string_buffer(64)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
print("ready", flush=True)
ctypes.CDLL(None).pthread_mutex_lock(mutex)  # for ever, without the interpreter
"""
IN_AN_EVENT_LOOP = f"""
async def run():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, print, "handled")
    stop.watch("the loop is blocked")
    {IN_A_LIBRARY.strip().replace(chr(10), chr(10) + "    ")}
asyncio.run(run())
"""
WHILE_ANOTHER_THREAD_LIMITS = """
lock = threading.Lock()
lock.acquire()
threading.Timer.start = lock.acquire  # the thread goes no further
threading.Thread(target=stop.limit, args=("",), daemon=True).start()
while not stop._limited.is_set():
    pass
"""


def _ended(script: str, stop_s: float = 0.2) -> tuple[int, str]:
    """Exit code and output of a process that got SIGTERM once it was ready.

    `stop_s`: the limit of its stop.
    """
    program = f"""
import asyncio, ctypes, signal, threading
from core.process import stop
stop.STOP_S, stop.LAST_S = {stop_s}, 1.0
{script}
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=120)
        finally:
            process.kill()
    return process.returncode, output


@pytest.mark.parametrize(
    "script",
    [f'stop.on_signal(print, "the library waits")\n{IN_A_LIBRARY}', IN_AN_EVENT_LOOP],
    ids=["thread", "event loop"],
)
def test_a_process_whose_main_thread_waits_in_a_library_ends_with_success(script: str) -> None:
    code, output = _ended(script)
    assert code == 0
    assert "stop_forced" in output


@pytest.mark.parametrize("before", ["", WHILE_ANOTHER_THREAD_LIMITS], ids=["alone", "beside"])
def test_an_interpreter_that_does_not_end_prints_its_stacks_and_ends_with_an_error(
    before: str,
) -> None:
    code, output = _ended(
        f"""
{before}
class Client:
    def __del__(self, lock=ctypes.PyDLL(None).pthread_mutex_lock):
        mutex = ctypes.create_string_buffer(64)
        lock(mutex)
        lock(mutex)  # for ever, and no other thread runs Python

client, ended = Client(), threading.Event()
stop.on_signal(ended.set, "")
print("ready", flush=True)
ended.wait()
""",
        stop_s=10.0,  # so that the interpreter has begun to end
    )
    assert (code, "in __del__" in output) == (1, True), output


def test_a_loop_that_works_still_gets_the_signal() -> None:
    assert _ended(
        """
async def run():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    stop.watch("")
    print("ready", flush=True)
    await ended.wait()
    print("handled")
asyncio.run(run())
"""
    ) == (0, "handled\n")
