"""The producers of the documentation run when they are pasted."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from core.codec import decode_interaction
from core.settings import Settings
from store.log.client import ensure_topics
from testing.apache import KafkaBroker
from testing.ports import free_port
from testing.process import ROOT
from testing.tansu import TansuBroker
from tests.clients.kafka import count, messages

Broker = KafkaBroker | TansuBroker
PASTED = ("event-contract.md", "clients.md")
"""Pages of docs/ with a producer to paste."""


def pasted(page: str) -> str:
    """The producer of a page."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert isinstance(example, str)
    assert "localhost:9092" in example
    return example


@pytest.mark.parametrize("page", PASTED)
def test_a_producer_pasted_from_the_documentation_sends(
    settings: Settings, broker: Broker, backend_python: Path, tmp_path: Path, page: str
) -> None:
    as_documented = settings.model_copy(update={"interactions_topic": "interactions"})
    ensure_topics(as_documented)
    before = count(as_documented, "interactions")
    script = pasted(page).replace("localhost:9092", settings.kafka_bootstrap_servers)
    done = subprocess.run(
        [backend_python, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={},
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for message in messages(as_documented, "interactions", before + 1):
        event = decode_interaction(message.value(), time.time(), settings.use_cases)
        assert (event.user_id, event.item_id) == ("42", "startup-9")


@pytest.mark.parametrize("page", PASTED)
def test_a_pasted_producer_says_within_seconds_that_the_broker_is_away(
    backend_python: Path, tmp_path: Path, page: str
) -> None:
    script = pasted(page).replace("localhost:9092", f"127.0.0.1:{free_port()}")
    began = time.monotonic()
    done = subprocess.run(
        [backend_python, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={},
        timeout=30,
    )
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert re.search(r"Kafka at 127\.0\.0\.1:\d+ did not answer within 4 s: .*refused", last), last
    assert time.monotonic() - began < 15, "five seconds, and generous time for a busy machine"
