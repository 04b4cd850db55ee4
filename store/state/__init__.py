"""Reads and writes Redis.

`keys` names every key, `connection` makes clients and maps errors, `redis_errors` says which error
replies to retry. `apply/` commits batches with their partition position, `entities/` has the typed
reads and writes of each kind of data; `lease`, `wipe`, `running` and `retrains` are for operations,
`inspection/` for those who look at the whole. Start with `keys`, then `apply/applier`.
"""
