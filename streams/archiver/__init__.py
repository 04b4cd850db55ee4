"""The interactions topic to Parquet, every offset once: `archiver` consumes and publishes files,
`rows` converts messages.

Start with `archiver`.
"""
