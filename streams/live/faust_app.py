"""Makes the live worker's app for Faust's own command line.

    faust -A streams.live.faust_app worker

Importing this module reads the settings and creates the app; nothing else imports it.
"""

from __future__ import annotations

from core.settings import load
from streams.live.command import create_app

app = create_app(load())
