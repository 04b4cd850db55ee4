"""Measures how good recommendations are.

`evaluate` runs the serving recommender offline on held-out events; `metrics` and `intervals` hold
the formulas with their sources; `experiments` reports A/B tests.

Start with `evaluate`.
"""
