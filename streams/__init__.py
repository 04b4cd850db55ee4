"""Everything that consumes or produces events; one folder for each process or command.

`ingest/` applies the log to Redis, `archiver/` writes it to Parquet, `live/` folds users in, and
`rebuild/` restores Redis. `dead_letters/`, `importers/` and `simulator/` are commands; `commands/`
has the options of all. Start with `ingest/loop`.
"""
