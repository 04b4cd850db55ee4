"""The Parquet archive of the interactions topic.

`archive` lists, reads and appends files, `layout` names them, `schema` has their columns, `publish`
writes each one whole and once, `storage` opens the folder or bucket. Start with `archive`.
"""
