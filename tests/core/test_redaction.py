"""No output contains three successive characters of a secret, whatever form the URL has."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog
import typer
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core import redaction
from core import settings as settings_module
from core.errors import EddylineError
from core.process import cli, logs
from core.settings import Settings
from store.archive.archive import Archive
from store.state import connection
from store.state.apply import positions
from streams.importers.database import Table

PIECE = 3
"""Number of successive characters of a secret that must not appear."""
ALPHABET = "QZXJKWVYqzxjkwvy0123456789#/?@:&=%+ -._~!$[]\\\"'é"
"""Rare letters and every character that delimits a part of a URL."""
SECRETS = st.text(ALPHABET, min_size=4, max_size=16)
FORMS = ("raw", "quoted")
REDIS_URLS = (
    "redis://:{}@127.0.0.1:1/0",
    "redis://user:{}@127.0.0.1:1/0",
    "redis://127.0.0.1:1/0?password={}",
    "rediss://:{}@127.0.0.1:1",
)
ARCHIVE_URLS = (
    "s3://KEY:{}@bucket/archive?region=eu-west-1",
    "s3://{}:{}@bucket?region=eu-west-1",
    "KEY:{}@bucket",
    "s3://bucket/archive?region=eu-west-1&access_key=KEY&secret_key={}",
)
DATABASE_URLS = (
    "postgresql://user:{}@127.0.0.1:1/events",
    "sqlite://user:{}@/x",
    "mysql+none://user:{}@host/events",
    "user:{}@host/events",
    "postgresql://127.0.0.1:1/events?password={}",
)


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_registered", [])


def pieces(secret: str) -> set[str]:
    """Every substring of PIECE characters, as written and as it stands in a URL."""
    return {
        form[at : at + PIECE]
        for form in (secret, quote(secret, safe=""))
        for at in range(len(form) - PIECE + 1)
    }


def leaked(secret: str, output: str, other_output: str) -> set[str]:
    """Pieces of `secret` in `output`, except those in the output about another secret."""
    return {piece for piece in pieces(secret) if piece in output and piece not in other_output}


def outcome(call: Callable[[], object]) -> str:
    """The output of a command: the value, or the line of its EddylineError.

    Any other exception fails the test.
    """
    try:
        return str(call())
    except EddylineError as error:
        return str(error)


def loaded(**values: str) -> Settings:
    """The settings of a process with `values` in its environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        return settings_module.load()


def printed(**values: str) -> str:
    """The output of `python -m core.settings`."""
    return outcome(
        lambda: "\n".join("=".join(row) for row in settings_module.rows(loaded(**values)))
    )


def redis_fails(url: str) -> str:
    """The output of a command without a Redis server."""
    return outcome(lambda: positions.read(connection.connect(loaded(REDIS_URL=url)), "t", 0))


def archive_fails(url: str) -> str:
    """The output of opening the archive; a request to S3 would need a network."""
    return outcome(lambda: Archive(url) and redaction.masked_url(url))


def import_fails(url: str) -> str:
    return outcome(lambda: Table(url, "events").name)


SHOWN: dict[str, tuple[tuple[str, ...], Callable[[str], str]]] = {
    "settings of Redis": (REDIS_URLS, lambda url: printed(REDIS_URL=url)),
    "settings of the archive": (ARCHIVE_URLS, lambda url: printed(ARCHIVE_URL=url)),
    "Redis away": (REDIS_URLS, redis_fails),
    "archive": (ARCHIVE_URLS, archive_fails),
    "import": (DATABASE_URLS, import_fails),
    "repr": (ARCHIVE_URLS, lambda url: repr(Settings(archive_url=url))),
}


@pytest.mark.parametrize("what", SHOWN)
@given(secret=SECRETS, form=st.sampled_from(FORMS), number=st.integers(0, 4))
@example(secret="&000", form="raw", number=3)  # the library's error named it as a parameter
@hypothesis_settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)
def test_no_output_contains_a_part_of_a_secret(
    what: str, secret: str, form: str, number: int
) -> None:
    templates, show = SHOWN[what]
    template = templates[number % len(templates)]

    def url_with(text: str) -> str:
        return template.replace("{}", quote(text, safe="") if form == "quoted" else text)

    if "\0" in secret or (secret != secret.strip() and form == "raw"):
        return
    # a valid URL and a malformed one
    others = show(url_with("AAAA")) + show(template.replace("{}", "A#/@A"))
    assert leaked(secret, show(url_with(secret)), others) == set()


def test_a_percent_encoded_redis_password_may_have_every_reserved_character() -> None:
    secret = "#/?@:&=%+ []"
    client = connection.connect(
        loaded(REDIS_URL=f"redis://user:{quote(secret, safe='')}@127.0.0.1:1/0")
    )
    assert client.connection_pool.connection_kwargs["password"] == secret


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


SECRET = 'qzx"jkw\\vyé12'


def test_logs_mask_the_secrets_of_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Even when a library puts a secret into its error."""
    import logging

    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        loaded(REDIS_URL=f"redis://:{quote(SECRET)}@host", API_KEYS="qzx-key-1,qzx-key-2")
        logs.configure("info")
        log = structlog.get_logger("test")
        log.warning("failed", error=f"cannot use {SECRET}", nested={"keys": ["qzx-key-1"]})
        try:
            raise RuntimeError(f"redis://:{quote(SECRET)}@host")
        except RuntimeError:
            log.exception("defect")
        logging.getLogger("foreign").warning("using %s", SECRET)
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["failed", "defect", "using ***"]
    for secret in (SECRET, quote(SECRET), json.dumps(SECRET)[1:-1], "qzx-key-1"):
        assert secret not in text


@pytest.mark.parametrize("kind", ["error", "defect", "thread"])
def test_a_command_that_fails_prints_no_secret(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["command"])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    app = typer.Typer()

    def fail() -> None:
        raise (
            EddylineError(SECRET) if kind == "error" else KeyError(f"redis://:{quote(SECRET)}@host")
        )

    @app.command()
    def command() -> None:
        loaded(REDIS_URL=f"redis://:{quote(SECRET)}@host")
        if kind != "thread":
            fail()
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        raise SystemExit(1)

    with pytest.raises(SystemExit) as ended:
        cli.run(app)
    assert ended.value.code == 1
    text = capsys.readouterr().err
    assert "***" in text
    assert SECRET not in text
    assert quote(SECRET) not in text


@pytest.mark.parametrize(
    "command",
    [["core.settings"], ["streams", "ingest"], ["training", "retrain"], ["api"]],
    ids=" ".join,
)
def test_every_command_refuses_a_malformed_redis_url_with_the_right_form(
    command: list[str], tmp_path: Path
) -> None:
    from testing.process import module

    child = module(
        *command,
        directory=tmp_path,
        environment={"REDIS_URL": "redis://:qzx#jkw/vy7@127.0.0.1:1/0", "PATH": "/usr/bin:/bin"},
    )
    child.start()
    try:
        assert child.wait(60) == 1
    finally:
        child.kill()
    text = child.log.read_text()
    assert "redis://[[user]:password@]host[:port][/database]" in text
    assert "Traceback" not in text
    assert [piece for piece in ("qzx", "jkw", "vy7") if piece in text] == []
