"""`make demo` runs the whole loop, ends cleanly, and reports an error in one line."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest
from redis import Redis

from core.settings import Settings
from testing.apache import KafkaBroker
from testing.ports import free_port
from testing.process import ROOT
from testing.redis import RedisServer
from testing.tansu import TansuBroker
from tests.support import eventually

SMALL_MARKETPLACE = ["--users", "600", "--items", "150", "--events", "12000"]
RUN_TIMEOUT_S = 400
"""Seconds that one run may take on a busy machine: it starts seven Python processes and two
servers, and fits two models.
"""

pytestmark = pytest.mark.timeout(RUN_TIMEOUT_S + 100)


class Run:
    """A demo in a folder of its own, in a session of its own, as a terminal would start it."""

    def __init__(
        self, folder: Path, *arguments: str, repository: Path = ROOT, **environment: str
    ) -> None:
        self.folder, self._output = folder, folder.parent / f"{folder.name}.out"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in {"KAFKA_HOME", "PYTHONPATH"}
        }
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "demo",
                    *SMALL_MARKETPLACE,
                    "--folder",
                    str(folder),
                    *(["--port", str(free_port())] if "--port" not in arguments else []),
                    *arguments,
                ],
                stdout=output,
                stderr=output,
                cwd=repository,
                env={**inherited, **environment},
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self._output.read_text()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def until(self, what: str) -> None:
        eventually(
            lambda: what in self.text or self.process.poll() is not None,
            f"{what!r} in the output",
            RUN_TIMEOUT_S,
        )
        assert what in self.text, self.text

    def end(self) -> int:
        return self.process.wait(RUN_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill all processes of the run, also where the test failed."""
        for process in [*self.children(), self.process] if self.process.poll() is None else []:
            process.kill()
        self.process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "demo"


@pytest.mark.process
def test_a_run_ends_with_three_reads_by_the_engines_of_the_router(
    folder: Path, broker: KafkaBroker | TansuBroker, redis: Redis, redis_server: RedisServer
) -> None:
    """On servers that run already, named by KAFKA_BOOTSTRAP_SERVERS and REDIS_URL."""
    with Run(
        folder,
        *("--once", "--servers", "environment"),
        KAFKA_BOOTSTRAP_SERVERS=broker.address,
        REDIS_URL=redis_server.url,
    ) as run:
        assert run.end() == 0, run.text
    methods = dict(
        re.findall(r"^(cold|warm|hot) user .*: method_used (\w+)$", run.text, re.MULTILINE)
    )
    assert methods == {"cold": "content_based", "warm": "als", "hot": "ensemble"}, run.text
    assert "fell back" not in run.text
    assert run.text.count("similar to") >= 5
    tables = [line for line in run.text.splitlines() if re.match(r"(#|─|[1-5]| {10,}) ", line)]
    assert len(tables) > 15
    assert max(map(len, tables)) <= 80
    assert re.search(r"it takes about \d+ s on two idle cores", run.text)
    assert (
        redis.exists(*(f"ingest:eddyline-demo-interactions:{number}" for number in range(4))) == 4
    )
    assert not list(folder.rglob("*.pid"))


def test_the_demo_stays_up_with_live_traffic_until_ctrl_c_and_leaves_no_process(
    folder: Path,
) -> None:
    with Run(folder) as run:
        run.until("Now live")
        page = re.search(r"the page: .* (http\S+)$", run.text, re.MULTILINE)
        report = re.search(r"the same as a file +(\S+)$", run.text, re.MULTILINE)
        assert page
        assert report
        html = httpx.get(page[1], headers={"accept": "text/html"}).text
        assert "<title>" in html
        assert (ROOT / report[1]).is_file()
        children = run.children()
        # a broker, a Redis, ingest, archive, a live worker, the API, live traffic
        assert len(children) >= 7
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0, run.text
    for child in children:
        eventually(
            lambda child=child: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE,
            f"{child} ended",
        )
    assert "Traceback" not in run.text


def test_a_process_that_dies_is_reported_in_one_line_and_stops_the_demo(folder: Path) -> None:
    with Run(folder) as run:
        run.until("Creating the topics")
        ingest = eventually(
            lambda: [child for child in run.children() if "ingest" in child.cmdline()],
            "ingest runs",
        )[0]
        children = run.children()
        ingest.kill()
        assert run.end() == 1
    assert re.search(
        r"^error: ingest died \(signal SIGKILL\); \S+ingest\.log ends: ", run.text, re.MULTILINE
    ), run.text
    assert "Traceback" not in run.text
    for child in children:
        eventually(
            lambda child=child: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE,
            f"{child} ended",
        )


def test_a_port_in_use_is_reported_in_one_line(folder: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as occupied,
        Run(folder, "--once", "--port", str(occupied.getsockname()[1])) as run,
    ):
        assert run.end() == 1
    assert re.search(r"^error: port \d+ is in use on 127.0.0.1; ", run.text, re.MULTILINE), run.text
    assert "Traceback" not in run.text


def test_a_second_demo_in_the_same_folder_is_refused(folder: Path) -> None:
    with Run(folder) as first:
        first.until("done")
        second = subprocess.run(
            [sys.executable, "-m", "demo", "--once", "--folder", str(folder)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=RUN_TIMEOUT_S,
        )
        assert second.returncode == 1
        assert second.stderr == f"error: another demo is running in {folder}; end that one first\n"
        assert first.process.poll() is None
        first.process.send_signal(signal.SIGTERM)
        assert first.end() == 0


def test_a_wrong_setting_is_reported_in_one_line(folder: Path) -> None:
    arguments = ("--once", "--servers", "environment")
    with Run(folder, *arguments, COLD_START_THRESHOLD="many") as run:
        assert run.end() == 1
    assert "COLD_START_THRESHOLD" in run.text
    assert "Traceback" not in run.text


def test_the_environment_file_points_commands_at_the_demo_and_is_private(folder: Path) -> None:
    with Run(folder) as run:
        eventually(
            lambda: (folder / "env").exists() and (folder / "env").stat().st_size,
            "the file is written",
        )
        lines = dict(line.split("=", 1) for line in (folder / "env").read_text().splitlines())
        names = {name.lower().removesuffix("_file") for name in lines}
        assert names == set(Settings.model_fields), "no setting of .env reaches the command"
        assert lines["REDIS_URL"].startswith("redis://127.0.0.1:")
        assert (folder / "env").stat().st_mode & 0o077 == 0
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 0
