"""The exactly-once apply: `batches` commits interactions and the partition position in one
transaction, `entries` items and users.

`positions` checks where a partition stands, `deletions` which users and items are deleted,
`pending` adds up popularity before it is written, `halts` notes a transaction that Redis applied in
part. Start with `batches`.
"""
