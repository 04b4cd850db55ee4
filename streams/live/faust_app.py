"""The model plane for Faust's own command line: `faust -A streams.live.faust_app worker`.

Only importing this module makes the app.
"""

from __future__ import annotations

from core.settings import load
from streams.live.command import create_app

app = create_app(load())
