"""The retrain job: `retrain` calls the `stages` in order, `gate` compares with the live bundle, `worker` answers requests.

`context` is what stages share, `fitting` the ALS fit, `background` what runs beside it, `run` the progress report. Start with `retrain`.
"""
