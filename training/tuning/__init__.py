"""Searches hyperparameters under a time budget.

`als` and `two_tower` search with Optuna, whose studies `study` stores and resumes; `served` fits
both models once and chooses the blend and the thresholds; `router` judges the thresholds; `command`
shares the time between these parts, `options` declares them.

Start with `command`.
"""
