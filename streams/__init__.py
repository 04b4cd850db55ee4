"""Everything that consumes or produces events; one folder for each process or command.

`ingest/` applies the log to Redis, `archiver/` writes it to Parquet, `live/` folds in what changed,
`rebuild/` makes Redis again, `dead_letters/`, `importers/` and `simulator/` are commands. Start
with `ingest/loop`.
"""
