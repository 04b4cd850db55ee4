"""Redis from the archive: `plan` checks everything before anything changes, `command` rebuilds.

`archived_letters` publishes dead letters that ingest has not read. Start with `command`.
"""
