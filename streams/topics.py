"""`python -m streams topics`: creates what is missing of our topics, and compares those that exist
with what is needed.
"""

from __future__ import annotations

import sys

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from core.settings import Settings
from store.log import client as log
from store.log.topics import check


def run(settings: Settings, as_json: bool = False) -> bool:
    """Create and compare, and print both; returns whether every topic is as needed.

    Raises LogUnavailable.
    """
    created = log.ensure_topics(settings)
    differences = check.compare(settings)
    if as_json:
        print(
            msgspec.json.format(
                msgspec.json.encode({"created": created, "differences": differences}), indent=2
            ).decode()
        )
        return not differences
    print("created: " + (", ".join(created) or "nothing, they are all there"))
    if differences:
        table = Table("topic", "setting", "is", "needed", "ingest starts", "what follows")
        for row in differences:
            columns = (
                row.topic,
                row.setting,
                row.value,
                row.needed,
                "no" if row.fatal else "yes",
                row.consequence,
            )
            table.add_row(*map(Text, columns))
        Console().print(table)
        print("The commands that mend it, with Kafka's own tools:")
        for row in differences:
            print(row.command)  # not in the table, so that it can be copied whole
    sys.stdout.flush()
    return not differences
