"""Imports events, items and users from files and databases into Kafka.

`options` checks the command's options, `formats` finds which column holds which field, `sources`
and `database` read rows, `convert` makes messages of them, `rejects` writes the invalid rows.
Start with `command`.
"""
