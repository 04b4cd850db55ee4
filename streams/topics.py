"""Creates the missing topics and compares the others with what is needed: `streams topics`."""

from __future__ import annotations

import sys

from core.process import tables
from core.process.tables import Column, Table
from core.settings import Settings
from store.log import client as log
from store.log.topics import check


def run(settings: Settings, as_json: bool = False, wide: bool = False) -> bool:
    """Create and compare the topics, and print both; returns whether every topic is as needed.

    Raises LogUnavailable.
    """
    created = log.ensure_topics(settings)
    differences = check.compare(settings)
    if as_json:
        tables.print_json({"created": created, "differences": differences})
        return not differences
    print("created: " + (", ".join(created) or "nothing, all topics exist"))
    if differences:
        table = Table(
            Column("topic"),
            Column("setting"),
            Column("is"),
            Column("needed", 1),
            Column("ingest starts", 2),
            Column("consequence", wraps=True),
        )
        for row in differences:
            starts = "no" if row.fatal else "yes"
            table.add(row.topic, row.setting, row.value, row.needed, starts, row.consequence)
        sys.stdout.flush()
        table.show(tables.console(wide))
        print("Commands of Kafka's own tools that correct it:")
        for row in differences:
            print(row.command)  # not in the table, so that it can be copied
    sys.stdout.flush()
    return not differences
