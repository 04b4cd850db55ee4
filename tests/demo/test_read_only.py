"""The processes of production with a file system that nobody can write to."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from core.codec import decode_interaction, encode_json
from core.settings import Settings
from store.log.producer import Producer
from store.state import keys
from testing.process import Child, settings_environment
from tests.api.world import event, port_of, publish
from tests.support import eventually

READ_ONLY = 'mount --make-rprivate / && mount -o remount,ro,bind / && exec setpriv "$@"'
"""In a mount namespace of its own: every file system below / is read-only, and the process has no
rights of root over files.
"""


def _read_only(*command: str) -> list[str]:
    mounts = "for point in /tmp /dev/shm /run /var/tmp; do mount -o remount,ro,bind $point; done"
    script = f"mount --bind /tmp /tmp; {mounts} 2>/dev/null; {READ_ONLY}"
    drop = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    return ["unshare", "--mount", "sh", "-c", script, "sh", *drop, sys.executable, *command]


@pytest.fixture(scope="module", autouse=True)
def _needs_namespaces() -> None:
    probe = "import pathlib, sys; pathlib.Path('/tmp/written').write_text('')"
    try:
        result = subprocess.run(_read_only("-c", probe), capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs unshare and setpriv (util-linux)")
    if "Read-only file system" not in result.stderr:
        pytest.skip("needs the right to mount (CAP_SYS_ADMIN)")


@pytest.fixture
def children(tmp_path: Path, settings: Settings) -> Iterator[dict[str, Child]]:
    """The API, ingest and a live worker, each on a read-only file system."""
    publish(settings)
    environment = {
        **settings_environment(settings.with_overrides({"api_port": 0})),
        "HOME": "/nonexistent",
    }
    started = {
        name: Child(name, _read_only("-m", *command), tmp_path / "logs", environment).start()
        for name, command in {
            "api": ["api"],
            "ingest": ["streams", "ingest"],
            "live": ["streams", "live"],
        }.items()
    }
    yield started
    for child in started.values():
        child.kill()


def test_api_ingest_and_live_run_with_nothing_writable(
    settings: Settings, redis: Redis, broker: object, children: dict[str, Child]
) -> None:
    port = eventually(
        lambda: port_of(children["api"].log.read_text()), "the API serves", timeout=60
    )
    with Producer(settings) as producer:
        interaction = decode_interaction(encode_json(event()), time.time(), settings.use_cases)
        producer.interaction(interaction)

    def answer() -> str:
        for child in children.values():
            child.check()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/users/42", timeout=30) as read:
            return read.read().decode()

    eventually(lambda: '"interaction_count":1' in answer(), "the event is counted", timeout=60)
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}/api/recommendations/42", timeout=30
    ) as read:
        assert read.status == 200
    eventually(
        lambda: redis.hget(keys.ONLY.user_als("42"), "as_of") is not None,
        "the live worker stored the vector",
        timeout=60,
    )
    for child in children.values():
        assert "Traceback" not in child.log.read_text(), child.name
