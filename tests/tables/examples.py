"""The example files: some lie in files/, others are made by binary.py.

Each has the shape of a public file, or of what people export, with rows of our own. What a reader
makes of it stands in expected.json, by the name of the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from store.tables.command_line import Typed
from tests.tables import binary

_FOLDER = Path(__file__).parent
EXPECTED: dict[str, dict[str, Any]] = json.loads((_FOLDER / "expected.json").read_text("utf-8"))
"""Name of an example -> kind, known layout, valid rows, rejects, missing cells, duplicates."""

OPTIONS: dict[str, Typed] = {
    "ours/no-header.csv": Typed(header="user_id,item_id,timestamp", constant=["event_type=view"]),
    "ours/cp1252.csv": Typed(decimal=","),
    "ours/us-dates.csv": Typed(time_format=["%m/%d/%Y %H:%M"]),
    "ours/items.csv": Typed(kind="items", only_mapped=True),
    "ours/items.jsonl": Typed(kind="items"),
    "ours/shift-jis.csv": Typed(encoding="shift_jis"),
    "ours/catalogue.csv": Typed(
        kind="items",
        map=["item_id=sku", "title=Name,categories=Gruppen,created_at=seit"],
        constant=["item_type=book"],
        time_format=["%d.%m.%Y"],
        decimal=",",
        list_separator="/",
        delimiter=";",
        encoding="cp850",
    ),
    "ours/shop.csv": Typed(
        map=["user_id=kunde,item_id=artikel", "timestamp=zeit,value=menge"],
        constant=["event_type=purchase"],
        time_unit="ms",
        decimal=",",
        delimiter=";",
    ),
}
"""What the command lines say about examples that do not explain themselves."""


def write(name: str, folder: Path) -> Path:
    """The path of an example, which is made in `folder` where it is not text."""
    if name in binary.MADE:
        path = folder / name
        binary.MADE[name](path)
        return path
    return _FOLDER / "files" / name
