"""The units of systemd run commands that exist, with few rights, and those that the docs name."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.settings import Settings
from testing.process import ROOT
from tests.demo.commands import check_command

UNITS = ROOT / "ops" / "systemd"
COMMON = UNITS / "eddyline-.service.d" / "common.conf"
SERVICES = sorted(UNITS.glob("eddyline-*.service"))
PYTHON = "/opt/eddyline/.venv/bin/python"
EXPOSURE = 2.5
"""Of 10, by `systemd-analyze security`; a service without any protection has 9.6."""
systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian's systemd)"
)


def _value(path: Path, name: str) -> str:
    """The last value of an option of a unit; empty if it has none."""
    values = re.findall(rf"^{name}=(.*)$", path.read_text(), re.MULTILINE)
    return values[-1] if values else ""


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.name)
def test_every_command_of_a_unit_exists(path: Path) -> None:
    python, *words = shlex.split(_value(path, "ExecStart"))
    assert python == PYTHON
    check_command(["python", *words])


def test_every_variable_of_a_unit_is_a_setting() -> None:
    known = {name.upper() for name in Settings.model_fields}
    for path in [COMMON, *SERVICES]:
        for line in re.findall(r"^Environment=(.*)$", path.read_text(), re.MULTILINE):
            names = {pair.split("=")[0] for pair in shlex.split(line)}
            others = {name for name in names if name.startswith("PYTHON")} | {"TMPDIR"}
            assert names - others <= known, path.name


def test_units_serve_their_metrics_where_prometheus_reads_them() -> None:
    text = (ROOT / "ops" / "prometheus" / "prometheus-systemd.yml").read_text()
    scraped = dict(re.findall(r"job_name: (\w+)\n.*127\.0\.0\.1:(\d+)", text))
    assert scraped.pop("api") == str(Settings().api_port)
    served = {
        path.stem.removeprefix("eddyline-"): port[1]
        for path in SERVICES
        if (port := re.search(r"METRICS_PORT=(\d+)", path.read_text()))
    }
    assert served == scraped


def test_the_target_starts_every_process_and_the_timer_of_expiry() -> None:
    text = (UNITS / "eddyline.target").read_text()
    started = set(" ".join(re.findall(r"^Wants=(.*)$", text, re.MULTILINE)).split())
    staying = {path.name for path in SERVICES if _value(path, "Type") == "exec"}
    assert started == staying | {"eddyline-expire.timer"}
    for timer in UNITS.glob("*.timer"):
        assert timer.with_suffix(".service").exists(), timer.name


def test_docs_name_every_unit_that_they_enable() -> None:
    pages = [ROOT / "docs" / name for name in ("without-docker.md", "operations.md")]
    for page in pages:
        for name in re.findall(
            r"\b((?:eddyline|kafka)(?:[\w-]*\w)?\.(?:service|timer|target))", page.read_text()
        ):
            assert (UNITS / name).exists(), f"{page.name}: {name}"


@systemd
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    units = _installed(tmp_path)
    paths = [
        str(path) for path in units.iterdir() if path.suffix in {".service", ".timer", ".target"}
    ]
    done = _analyze(units, "verify", *paths)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@systemd
def test_units_have_few_rights(tmp_path: Path) -> None:
    units = _installed(tmp_path)
    for path in SERVICES:
        done = _analyze(units, "security", "--offline=true", "--no-pager", str(units / path.name))
        level = re.search(r"Overall exposure level .*: ([\d.]+)", done.stdout)
        assert level, done.stdout + done.stderr
        assert float(level[1]) <= EXPOSURE, path.name


def _installed(tmp_path: Path) -> Path:
    """A copy of the units whose programs exist on this machine."""
    units = tmp_path / "units"
    shutil.copytree(UNITS, units)
    for path in units.rglob("*.service"):
        text = path.read_text().replace(PYTHON, sys.executable)
        path.write_text(re.sub(r"/opt/kafka/bin/\S+", "/bin/true", text))
    return units


def _analyze(units: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"SYSTEMD_UNIT_PATH": f"{units}:/lib/systemd/system", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        ["systemd-analyze", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )
