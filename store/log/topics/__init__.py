"""Eddyline's topics: what each needs, and what the broker has.

`needs` says what each topic needs, `check` creates topics and compares them with that, `ids` reads
their ids from the broker, `partitions` counts their partitions. Start with `needs`.
"""
