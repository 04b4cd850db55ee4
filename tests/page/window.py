"""A browser window that notes what a page must not do, and says how the page is laid out."""

from __future__ import annotations

import difflib
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request

STRUCTURES = Path(__file__).with_name("structures")
UPDATE = "UPDATE_STRUCTURES"
"""With this variable the stored structures are written instead of compared."""
WIDE, NARROW = 1300, 390
"""Pixels: a laptop's window, and a phone's."""
_WAIT_MS = 20_000
_SETTLED_MS = 4000
"""Until a page shows all that it has asked for, when its structure is stored."""
_SEVERE = {"serious", "critical"}
_REFUSED = "the server responded with a status of 4"
"""Chromium reports refused requests too: the page shows their cause, or asks for a key."""
_OUTLINE = Path(__file__).with_name("outline.js").read_text("utf-8")


class Window:
    """A page in a browser context of its own.

    `scheme`: "light" or "dark"; `options` as for Browser.new_context.
    """

    def __init__(
        self,
        browser: Browser,
        url: str,
        width: int = WIDE,
        scheme: str = "light",
        **options: Any,
    ) -> None:
        self.errors: list[str] = []
        self.foreign_requests: list[str] = []
        self._origin = _origin(url)
        self._context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
            reduced_motion="reduce",
            **options,
        )
        self._context.set_default_timeout(_WAIT_MS)
        self.page: Page = self._context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._check)

    def close(self) -> None:
        """Close the window."""
        self._context.close()

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        widths = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(widths))

    def violations(self) -> list[str]:
        """What axe-core takes for a serious barrier, with the elements."""
        return [
            f"{violation['id']}: {[node['target'] for node in violation['nodes']]}"
            for violation in Axe().run(self.page).response["violations"]
            if violation["impact"] in _SEVERE
        ]

    def check_structure(self, name: str) -> None:
        """Wait until the layout of the page is the stored one of that name."""
        width = self.page.evaluate("innerWidth")
        file = STRUCTURES / f"{name}-{width}.json"
        if os.environ.get(UPDATE):
            self.page.wait_for_timeout(_SETTLED_MS)
            lines = self.page.evaluate(_OUTLINE)
            file.write_text(json.dumps(lines, indent=0, ensure_ascii=False) + "\n", "utf-8")
        stored = json.loads(file.read_text("utf-8"))
        deadline = time.monotonic() + _WAIT_MS / 1000
        while (lines := self.page.evaluate(_OUTLINE)) != stored and time.monotonic() < deadline:
            self.page.wait_for_timeout(100)
        difference = "\n".join(difflib.unified_diff(stored, lines, "stored", "shown", lineterm=""))
        assert lines == stored, (
            f"{difference}\n{self.page.inner_text('main')}\n"
            f"{UPDATE}=1 stores the new structure in {file}"
        )

    def enter_key(self, key: str) -> None:
        """Type a key where the page asks for one."""
        dialog = self.page.get_by_role("dialog")
        dialog.get_by_label("Key").fill(key)
        dialog.get_by_role("button", name="Use this key").click()

    def focused(self) -> str:
        """The tag and the name of the element that has the focus."""
        return str(
            self.page.evaluate(
                "(({tagName, textContent, ariaLabel}) => tagName.toLowerCase() + ' ' + "
                "(ariaLabel ?? textContent).trim())(document.activeElement)"
            )
        )

    def press_until(self, key: str, focused: str, most: int = 80) -> None:
        """Press `key` until the element whose description starts with `focused` has the focus."""
        seen = []
        for _ in range(most):
            self.page.keyboard.press(key)
            seen.append(self.focused())
            if seen[-1].startswith(focused):
                return
        raise AssertionError(f"{key} does not reach {focused!r}; it reaches {seen}")

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and _REFUSED not in message.text:
            self.errors.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def _check(self, request: Request) -> None:
        scheme = urlsplit(request.url).scheme
        if scheme not in ("data", "blob") and _origin(request.url) != self._origin:
            self.foreign_requests.append(request.url)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
