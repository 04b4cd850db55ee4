"""Reads and writes typed values, one module for each kind of data.

They are users, histories, catalogue, vectors, new items, popularity, trending and experiments.
`reader` reads many users over one connection, `arrivals` waits until an event is applied. Start
with `users`.
"""
