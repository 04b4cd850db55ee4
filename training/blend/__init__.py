"""Chooses the blend that the ensemble serves.

`grid` compares fixed weights and decides; `learned` fits weights that depend on score and number of
events.

Start with `choice.choose`.
"""
