"""Typed reads and writes, one module for each kind of data: users, catalogue, vectors, new items,
popularity, trending, experiments.

`reader` reads many users over one connection, `arrivals` waits for an event to be applied. Start
with `users`.
"""
