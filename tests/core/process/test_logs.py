"""What people and programs read: results on stdout, logs on stderr as text or JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from testing.process import ROOT

NOWHERE = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "REDIS_URL": "redis://127.0.0.1:1"}


def stderr_of(*command: str, **environment: str) -> list[str]:
    """The log of a process whose servers are away."""
    output = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **NOWHERE, "START_TIMEOUT_S": "0.1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert output.returncode == 1
    assert output.stdout == ""
    return output.stderr.splitlines()


@pytest.mark.parametrize("log_format", ["auto", "json"])
def test_a_process_that_runs_until_it_is_stopped_logs_json_lines(log_format: str) -> None:
    *lines, error = stderr_of("streams", "archive", LOG_FORMAT=log_format)
    events = [json.loads(line)["event"] for line in lines]
    assert events[0] == "process_started"
    assert error.startswith("error: Kafka at 127.0.0.1:1 ")


def test_a_command_logs_text_beside_its_tables() -> None:
    lines = stderr_of("streams", "expire")
    assert "process_started" in lines[0]
    assert "role=expire" in lines[0]
    assert not [line for line in lines if line.startswith("{")]


def test_log_format_overrules_both() -> None:
    assert json.loads(stderr_of("streams", "expire", LOG_FORMAT="json")[0])["role"] == "expire"
    assert "role=archive" in stderr_of("streams", "archive", LOG_FORMAT="text")[0]


def test_the_first_line_names_version_role_servers_group_and_models_without_passwords() -> None:
    url = "redis://app:secret-word@127.0.0.1:1/0"
    lines = stderr_of("streams", "ingest", REDIS_URL=url, MODELS_PATH="/nowhere/models")
    started = json.loads(lines[0])
    assert started["event"] == "process_started"
    assert started["role"] == "ingest"
    assert started["version"]
    assert started["kafka"] == "127.0.0.1:1"
    assert "127.0.0.1:1" in started["redis"]
    assert started["group"] == "eddyline-ingest"
    assert (started["models"], started["live_bundle"]) == ("/nowhere/models", None)
    assert "secret-word" not in "".join(lines)
