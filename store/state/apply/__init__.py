"""Applies batches to Redis exactly once: the state and the partition position change together.

Interactions: `planner` turns events into commands, `applier` commits them; `batches` has their
types, `pending` sums popularity before it is written. Items and users: `entries`, `entry_applier`.
`positions` checks where a partition stands, `deletions` which users and items are deleted, `halts`
notes a transaction that Redis applied in part. Start with `applier`.
"""
