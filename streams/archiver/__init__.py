"""Writes the interactions topic to Parquet, every offset once.

`archiver` consumes and publishes files, `start_offset` finds where a partition is continued,
`buffer` collects the rows of a file, `rows` converts messages, `command` is the process. Start with
`archiver`.
"""
