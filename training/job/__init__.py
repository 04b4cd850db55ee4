"""The retrain job: `retrain` runs its steps in order, `gate` refuses a worse bundle, `worker` answers requests, `run` reports progress.

Start with `retrain`.
"""
