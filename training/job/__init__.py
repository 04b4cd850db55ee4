"""Runs retrains.

`retrain` calls the `stages` in order; `worker` answers retrain requests; `gate` compares a new
bundle with the live one. `context` is what the stages share, `fitting` fits ALS, `background`
prepares the comparison beside the fit, `run` reports progress, `manifest` describes the bundle.

Start with `retrain`.
"""
