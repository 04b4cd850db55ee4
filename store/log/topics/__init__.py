"""Eddyline's topics: `needs` says what each one needs, `check` creates them and compares them with
that, `ids` reads the ids that the broker gave them.

Start with `needs`.
"""
