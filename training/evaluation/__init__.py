"""How good answers are: `evaluate` asks the recommender that serves; `metrics` and `intervals` hold the formulas with their sources.

`experiments` reports A/B tests. Start with `evaluate`.
"""
