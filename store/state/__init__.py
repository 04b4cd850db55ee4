"""Reads and writes Redis.

`keys` names every key, `shards` divides users over the slots of a cluster, `connection` makes
clients and maps errors, `servers/` reaches the servers. `apply/` commits batches with their
partition position, `entities/` has the typed reads and writes of each kind of data; `lease`,
`wipe`, `running` and `retrains` are for operations, `inspection/` for those who look at the whole.
Start with `keys`, then `apply/applier`.
"""
