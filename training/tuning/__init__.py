"""Hyperparameter search under a time budget: `als`, `two_tower`, the blend (`served`) and the `router`'s thresholds.

`study` resumes a search; `command` runs all of them. Start with `command`.
"""
