"""The Parquet archive: `layout` names, reads and appends files, `publish` makes each appear whole
and once.

Start with `layout`.
"""
