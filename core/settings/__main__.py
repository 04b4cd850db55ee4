"""Prints each setting with its value and meaning; with `--markdown`, the defaults as a table."""

from __future__ import annotations

import sys

from core.errors import ConfigurationError
from core.settings import load, rows

if sys.argv[1:] == ["--markdown"]:
    print("| name | default | meaning |\n|---|---|---|")
    print(
        "\n".join(
            f"| `{name}` | {f'`{value}`' if value else ''} | {meaning} |"
            for name, value, meaning in rows()
        )
    )
else:
    try:
        print("\n".join(f"{name}={value}\n    {meaning}" for name, value, meaning in rows(load())))
    except ConfigurationError as error:
        sys.exit(f"error: {error}")
