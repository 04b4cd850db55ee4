"""A real Chromium for the tests of the pages; without one they are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Playwright, expect, sync_playwright

from tests.page.window import Window

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

WAIT_MS = 20_000
"""Until a page must show what a test expects; a busy machine needs some of it."""

Open = Callable[..., Window]


def _program() -> str | None:
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def launch(playwright: Playwright) -> Browser:
    """Start the browser of this machine."""
    sandbox = os.geteuid() != 0  # Chromium's sandbox refuses to run as root
    return playwright.chromium.launch(executable_path=_program(), chromium_sandbox=sandbox)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Ends with the file: while it runs, no other test of this process can run an event loop."""
    if _program() is None:
        pytest.skip(f"needs a browser: one of {', '.join(PROGRAMS)} on PATH")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright, launch(playwright) as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """`open_page(url, width=390, ...)` opens a window of its own.

    At the end of the test no page has reported an error or requested anything of another host.
    """
    windows: list[Window] = []

    def open_(url: str, **options: object) -> Window:
        window = Window(browser, url, **options)  # type: ignore[arg-type]
        windows.append(window)
        window.page.goto(url)
        return window

    yield open_
    for window in windows:
        window.close()
    for window in windows:
        assert window.errors == []
        assert window.foreign_requests == []
