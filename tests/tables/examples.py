"""The example files: some lie in files/, others are made by binary.py.

Each has the shape of a public file, or of what people export, with rows of our own. What a reader
makes of it stands in expected.json, by the name of the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from store.tables.options import Options
from tests.tables import binary

_FOLDER = Path(__file__).parent
EXPECTED: dict[str, dict[str, Any]] = json.loads((_FOLDER / "expected.json").read_text("utf-8"))
"""Name of an example -> kind, known layout, valid rows, rejects and missing cells."""

OPTIONS: dict[str, Options] = {
    "ours/no-header.csv": Options(
        header=("user_id", "item_id", "timestamp"), constants={"event_type": "view"}
    ),
    "ours/cp1252.csv": Options(decimal=","),
    "ours/us-dates.csv": Options(time_formats=("%m/%d/%Y %H:%M",)),
    "ours/items.csv": Options(kind="items"),
    "ours/items.jsonl": Options(kind="items"),
    "ours/shift-jis.csv": Options(encoding="shift_jis"),
}
"""Examples that need to be told something."""


def write(name: str, folder: Path) -> Path:
    """The path of an example, which is made in `folder` where it is not text."""
    if name in binary.MADE:
        path = folder / name
        binary.MADE[name](path)
        return path
    return _FOLDER / "files" / name
