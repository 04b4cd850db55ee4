"""Imports events, items and users from files and databases into Kafka.

`options` checks the command's options, `convert` makes messages of the rows that store.tables
reads, `sorting` puts them in the order of time, `database` reads a table of a database, `summary`
counts, `rejects` writes the invalid rows, `progress_file` lets a killed import go on, `preview`
shows an import before it is made. Start with `command`.
"""
