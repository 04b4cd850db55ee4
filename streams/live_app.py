"""The model plane for Faust's own command line: `faust -A streams.live_app worker`. Only importing this module makes the app."""

from __future__ import annotations

from core.settings import load
from streams.live import create_app

app = create_app(load())
