"""Commands, links and settings that the documents name exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import settings
from testing.process import ROOT
from tests.demo.commands import check_command

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: Path) -> Iterator[list[str]]:
    """Every `python -m ...` of a page, in a block or in a line, as words; nothing after a pipe, a
    redirection or a comment.
    """
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    for line in re.findall(
        r"python3? -m ((?:api|streams|training|engines|demo|benchmarks)\b[^`\n|>;&#]*)", text
    ):
        yield ["python", "-m", *shlex.split(line.strip().rstrip(".,:)"))]


@pytest.mark.timeout(800)  # each --help is a process
@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_command_in_the_docs_exists(page: Path) -> None:
    for words in commands(page):
        if "..." not in words:
            check_command(words)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_make_target_in_the_docs_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    # in code only: prose makes things too
    code = re.findall(r"```sh\n.*?```|`[^`\n]+`", page.read_text(), re.DOTALL)
    for target in re.findall(r"(?:^|\s)make ([a-z][a-z-]*)", " ".join(code).replace("`", " ")):
        assert target in targets, f"make {target}"


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_file_named_in_the_docs_exists(page: Path) -> None:
    rooms = "core|models|store|engines|streams|training|api|testing|demo|tests|benchmarks|clients"
    for name in re.findall(rf"`((?:{rooms})/[\w/.-]+)`", page.read_text()):
        assert (ROOT / name).exists() or name == "models/artifacts", name


def test_every_page_can_be_found_from_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_every_decision_is_in_the_index_of_the_architecture_page() -> None:
    index = (ROOT / "docs" / "architecture.md").read_text()
    for page in (ROOT / "docs" / "adr").glob("*.md"):
        assert f"(adr/{page.name})" in index, page.name


def test_every_decision_has_a_number_a_status_and_a_date() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [page.name[:5] for page in pages] == [
        f"{number:04d}-" for number in range(1, len(pages) + 1)
    ]
    for page in pages:
        title, _, status = page.read_text().splitlines()[:3]
        assert title.startswith(f"# {page.name[:4]}: "), page.name
        assert re.fullmatch(
            r"Status: (accepted|superseded by \d{4})\. Date: \d{4}-\d{2}-\d{2}\.", status
        ), page.name


def test_the_settings_page_is_what_the_settings_say() -> None:
    table = [
        f"| `{name}` | {f'`{value}`' if value else ''} | {meaning} |"
        for name, value, meaning in settings.rows()
    ]
    page = (ROOT / "docs" / "settings.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("| `")] == table


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_every_setting_named_in_the_docs_exists(page: Path) -> None:
    known = {name.upper() for name in settings.Settings.model_fields}
    others = {
        "KAFKA_HOME",
        "KAFKA_HEAP",
        "DEMO",
        "TESTS",
        "RETRAIN_EVERY_S",
        "REDIS_PASSWORD",
        "NAME_FILE",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_TRACES_SAMPLER",
        "PATH",
        "HOME",
        "PYTHON",
        "PIP_EXTRA_INDEX_URL",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE",
        "SPARK_CONF_DIR",
        "REDIS_SERVER",
    }
    for name in re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`", page.read_text()):
        # a secret may come from the file that NAME_FILE names
        assert name in known | others or name.removesuffix("_FILE") in known, name


def test_the_first_screen_of_the_readme_has_the_two_commands() -> None:
    screen = (ROOT / "README.md").read_text().splitlines()[:25]
    assert any(line.startswith("make demo") for line in screen)
    assert any(line.startswith("make test") for line in screen)
