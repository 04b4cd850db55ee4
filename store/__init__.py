"""Reads and writes all stored data: `state/` (Redis), `log/` (Kafka clients), `archive/` (Parquet).

`start` waits for servers at the start of a process, `outage` logs when a server becomes unavailable
and available again. Start with `state/keys` for what Redis holds, and `state/apply/applier` for how
it changes.
"""
