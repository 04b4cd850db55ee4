"""Settings as they are shown."""

from __future__ import annotations

import pytest

from core.settings import Settings, rows, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://KEY:SECRET@bucket/archive?region=eu", "s3://***@bucket/archive?region=eu"),
        ("redis://:secret@host:6379/0", "redis://***@host:6379/0"),
        ("data/archive", "data/archive"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert ("ARCHIVE_URL", shown) in [row[:2] for row in rows(Settings(archive_url=url))]
