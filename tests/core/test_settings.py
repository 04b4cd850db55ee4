"""Settings: their groups, how their values are printed, which Redis URLs are valid."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from core.errors import ConfigurationError
from core.redaction import masked_url
from core.settings import GROUPS, Settings, load, rows


def test_every_setting_belongs_to_one_printed_group() -> None:
    names = [name for group in GROUPS for name in group.model_fields]
    assert sorted(names) == sorted(Settings.model_fields)


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("s3://KEY:SECRET@bucket/archive?region=eu", "s3://***@bucket/archive?region=eu"),
        (
            "s3://bucket/a?access_key=KEY&secret_key=SECRET",
            "s3://bucket/a?access_key=***&secret_key=***",
        ),
        ("s3://KEY:SEC/RET@bucket/archive", "s3://***"),
        ("redis://:secret@host:6379/0", "redis://***@host:6379/0"),
        ("redis://host:6379?password=secret&db=3", "redis://host:6379?password=***&db=3"),
        ("redis://:sec#ret@host:6379/0", "redis://***"),
        (
            "redis+sentinel://:secret@host1:26379,host2/service",
            "redis+sentinel://***@host1:26379,host2/service",
        ),
        ("postgresql+psycopg://bob:secret@host/name", "postgresql+psycopg://***@host/name"),
        ("secret://host", "secret://host"),
        ("data/archive", "data/archive"),
        ("data/a@b", "data/a@b"),
        ("KEY:SECRET@bucket", "***"),
        ("s3://bucket/a@b", "s3://***"),
    ],
)
def test_a_url_is_printed_without_its_secret(url: str, masked: str) -> None:
    assert masked_url(url) == masked
    assert ("ARCHIVE_URL", masked) in [row[:2] for row in rows(Settings(archive_url=url))]


@pytest.mark.parametrize(
    "url",
    [
        "host:6379",
        "redis://:sec#ret@host",
        "redis://:sec/ret@host",
        "redis://:12/34@host",
        "redis://user:12/34@host",
        "redis://:a@b@host",
        "redis://:sec?ret@host",
        "redis://user:12#secret@host",
        "redis://host:port",
        "http://host",
        "redis://",
        "unix://",
        "redis://host/a",
        "redis://host?pass#word=x",
        "redis://:a b@host",
        "redis://host1,host2",
        "redis+sentinel://host1,host2",
        "redis+sentinel://:sec#ret@host1,host2/service",
        "redis+sentinel://:a@b@host1/service",
        "redis+sentinel://host1,/service",
        "secret",
    ],
)
def test_a_malformed_redis_url_gets_one_line_with_the_right_form(url: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Settings(redis_url=SecretStr(url))
    message = raised.value.errors()[0]["msg"]
    assert "redis://[[user]:password@]host[:port][/database]" in message
    assert "\n" not in message
    assert len(url) < 10 or url not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host/",
        "redis://:p%23w@host:6379/0",
        "rediss://user:p@127.0.0.1:6380/2?ssl_cert_reqs=none",
        "redis://[::1]:6379/0",
        "unix:///run/redis.sock?db=1",
        "unix://:pw@/run/redis.sock",
        "redis://host?password=p%40w&db=2",
        "redis://eu-1.cache_x.example.com:6379",
        "redis+sentinel://user:p%23w@host1:26379,host2,[::1]:1/my-service/2",
        "rediss+sentinel://host1/service",
    ],
)
def test_a_redis_url_of_the_right_form_is_accepted(url: str) -> None:
    assert Settings(redis_url=SecretStr(url)).redis_url.get_secret_value() == url


def test_a_secret_comes_from_the_file_that_its_name_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("p#ss\n")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("KAFKA_SASL_USERNAME", "eddyline")
    monkeypatch.setenv("KAFKA_SASL_PASSWORD_FILE", str(tmp_path / "password"))
    settings = load()
    assert settings.kafka_sasl_password.get_secret_value() == "p#ss"
    assert "p#ss" in settings.secrets
    assert not any("p#ss" in value for row in rows(settings) for value in row)


@pytest.mark.parametrize("both", [False, True])
def test_a_secret_file_that_is_missing_or_not_the_only_source_is_refused(
    both: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "url").write_text("redis://localhost/1")
    if both:
        monkeypatch.setenv("REDIS_URL", "redis://localhost/2")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / ("url" if both else "none")))
    with pytest.raises(ConfigurationError, match="both" if both else "No such file"):
        load()


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("client.id=a, ssl.cipher.suites=x", {"client.id": "a", "ssl.cipher.suites": "x"}),
        ('{"sasl.jaas": "a,b=c"}', {"sasl.jaas": "a,b=c"}),
    ],
)
def test_further_client_properties_are_pairs_or_json(
    text: str, properties: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_EXTRA", text)
    extra = {name: value.get_secret_value() for name, value in load().kafka_extra.items()}
    assert extra == properties


def test_a_protocol_without_what_it_needs_names_the_missing_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    with pytest.raises(ConfigurationError, match="KAFKA_SASL_USERNAME"):
        load()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HISTORY_CAP", "abc", "HISTORY_CAP must be a whole number"),
        ("HISTORY_CAP", "1.5", "HISTORY_CAP must be a whole number"),
        ("HISTORY_CAP", "1", "HISTORY_CAP must be at least 50"),
        ("KAFKA_TIMEOUT_S", "-1", "KAFKA_TIMEOUT_S must be above 0"),
        ("KAFKA_TIMEOUT_S", "x", "KAFKA_TIMEOUT_S must be a number"),
        ("ENABLE_ALS", "maybe", "ENABLE_ALS must be true or false"),
        ("EXPLORE", "2", "EXPLORE must be at most 1"),
        ("ENSEMBLE_FUSION", "x", "ENSEMBLE_FUSION must be 'min_max' or 'rank'"),
    ],
)
def test_a_wrong_setting_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load()
    assert words in str(refused.value)
