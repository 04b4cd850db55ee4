"""Rebuilds Redis from the archive. `plan` checks everything before anything changes, `replay`
applies the events of one partition.

`archived_letters` publishes dead letters of messages that ingest has not read. Start with
`command`.
"""
