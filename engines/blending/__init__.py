"""Blends the scores of several engines: `ensemble` is the engine, `scales` the arithmetic.

`prior` is the share of popularity in the scores of the content engine. Start with `ensemble`.
"""
