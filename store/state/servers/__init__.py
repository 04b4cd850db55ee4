"""Reaches the servers of Redis: addresses, connections and the meaning of their errors.

`address` parses REDIS_URL, `cluster` finds the node of a slot. Start with
`store.state.connection`, which the other rooms use.
"""
