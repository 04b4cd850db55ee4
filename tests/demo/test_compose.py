"""docker-compose.yml and the Dockerfile name only commands, settings and files that exist.

(The schema itself is checked by `make check`.)
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from ruamel.yaml import YAML

from core.settings import Settings
from testing.process import ROOT
from tests.demo.commands import check_command

OURS = {"topics", "ingest", "live", "archive", "api", "trainer", "expire"}


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "docker-compose.yml")
    return loaded


def _services() -> Iterator[tuple[str, dict[str, Any]]]:
    yield from compose()["services"].items()


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_command_of_our_services_exists(name: str) -> None:
    words = shlex.split(" ".join(compose()["services"][name]["command"]).partition(" && ")[0])
    check_command(words[words.index("python") :])


def test_every_variable_of_our_processes_is_a_setting() -> None:
    known = {name.upper() for name in Settings.model_fields}
    passed = {variable for name in OURS for variable in compose()["services"][name]["environment"]}
    dockerfile = (ROOT / "Dockerfile").read_text()
    baked = set(re.findall(r"^(?:ENV|  )\s*([A-Z_]+)=", dockerfile, re.MULTILINE)) | set(
        re.findall(r" ([A-Z_]{4,})=/data", dockerfile)
    )
    python = {
        "PATH",
        "PYTHONUNBUFFERED",
        "PYTHONDONTWRITEBYTECODE",
        "PIP_DISABLE_PIP_VERSION_CHECK",
        "PIP_NO_CACHE_DIR",
    }
    assert passed | (baked - python) <= known


def test_every_variable_that_the_operator_sets_is_in_the_example() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    required = set(re.findall(r"\$\{([A-Z_]+)(?::\?|:-\})", text))
    example = set(re.findall(r"^([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert required == example


def test_redis_never_evicts_and_writes_an_append_only_file() -> None:
    command = " ".join(compose()["services"]["redis"]["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command


def test_only_loopback_is_published() -> None:
    ports = [port for _, service in _services() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)


def test_every_service_that_stays_up_has_a_health_check_and_no_root() -> None:
    for name, service in _services():
        if name != "topics":
            assert service["healthcheck"]["test"], name
        if name in OURS | {"redis"}:
            assert str(service["user"]).split(":")[0] not in {"", "0", "root"}, name
            assert service["read_only"] is True, name


def test_every_named_volume_is_used_and_declared() -> None:
    declared = set(compose()["volumes"])
    sources = {_source(volume) for _, service in _services() for volume in service["volumes"]}
    assert {source for source in sources if not source.startswith("./")} == declared
    assert all((ROOT / source).exists() for source in sources - declared)


def _source(volume: str | dict[str, Any]) -> str:
    """The name of a volume, or the path on the host, by default where a variable may name it."""
    source = volume.split(":")[0] if isinstance(volume, str) else str(volume["source"])
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", source)


def test_the_use_cases_of_the_operator_reach_every_process() -> None:
    for name in OURS:
        service = compose()["services"][name]
        mounted = next(volume for volume in service["volumes"] if isinstance(volume, dict))
        assert mounted["source"].startswith("${USE_CASES_PATH:-"), name
        assert mounted["target"] == service["environment"]["USE_CASES_PATH"], name


def test_watching_is_optional() -> None:
    watching = {name for name, service in _services() if service.get("profiles")}
    assert watching == {"prometheus", "grafana"}


def test_the_images_run_without_root_and_the_serving_image_has_no_trainer() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    serve = next(stage for stage in stages if " AS serve\n" in stage)
    base = next(stage for stage in stages if " AS base\n" in stage)
    assert "USER 10001:10001" in base
    assert "training" not in serve
    for stage in stages:
        for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", stage, re.MULTILINE):
            assert all((ROOT / path).exists() for path in copied.split()), copied


def test_the_serving_lock_holds_neither_torch_nor_a_build_from_source() -> None:
    names = {
        line.split("==")[0]
        for line in (ROOT / "requirements" / "serve.txt").read_text().splitlines()
        if "==" in line
    }
    assert "implicit" in names
    assert not names & {"torch", "faust-streaming", "pyarrow", "cython", "setuptools"}
