"""Takes the pictures of the page's views for the documentation, while a demo runs:

python -m tests.page.pictures http://127.0.0.1:8000 USER_ID ADMIN_KEY FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.page.conftest import launch
from tests.page.window import NARROW, WIDE, Window

SETTLED_MS = {"now": 70_000}
"""View -> milliseconds until its charts show something."""


def take(address: str, user_id: str, key: str, folder: Path) -> None:
    """Write VIEW-WIDTH.png for each view into `folder`."""
    views = {
        "now": "now",
        "models": "models",
        "user": f"users/{user_id}",
        "item": "items/startup-9",
        "experiments": "experiments",
        "dead-letters": "dead-letters",
    }
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, launch(playwright) as browser:
        for name, path in views.items():
            window = Window(browser, address)
            window.page.goto(f"{address}/#/{path}")
            if name == "dead-letters":
                window.enter_key(key)
            window.page.wait_for_timeout(SETTLED_MS.get(name, 3000))
            for width in (WIDE, NARROW):
                window.page.set_viewport_size({"width": width, "height": 900})
                window.page.wait_for_timeout(1000)
                window.page.screenshot(path=folder / f"{name}-{width}.png", full_page=True)
            window.close()


if __name__ == "__main__":
    take(*sys.argv[1:4], Path(sys.argv[4]))  # type: ignore[call-arg]
