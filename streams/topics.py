"""Creates the missing topics and compares the others with what is needed: `streams topics`."""

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
    """Create and compare the topics, and print both; returns whether every topic is as needed.

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
    print("created: " + (", ".join(created) or "nothing, all topics exist"))
    if differences:
        table = Table("topic", "setting", "is", "needed", "ingest starts", "consequence")
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
        print("Commands of Kafka's own tools that correct it:")
        for row in differences:
            print(row.command)  # not in the table, so that it can be copied
    sys.stdout.flush()
    return not differences
