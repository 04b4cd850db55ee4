"""Redis: `keys` names every key, `connection` makes clients and maps errors, `redis_errors` says
which replies to retry.

`apply/` holds what moves a partition position, `entities/` the typed reads and writes of each kind
of data; `lease`, `wipe`, `running` and `retrains` are for operations. Start with `keys`, then
`apply/applier`.
"""
