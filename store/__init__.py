"""Every place where data rests: `state/` (Redis), `log/` (Kafka's client side) and `archive/`
(Parquet).

`start` waits for servers at the start of a process, `outage` logs when one goes away and comes
back. Start with `state/keys` for what Redis holds, `state/apply/applier` for how it changes.
"""
