"""The Parquet archive of the interactions topic.

`archive` reads and appends files, `listing` lists them, `reading` reads one of them, `layout` names
them, `schema` has their columns, `publish` writes each one whole and once, `compaction` merges
small ones, `storage` opens the folder or bucket. Start with `archive`.
"""
