"""Measurements of speed and of ranking quality; README.md lists the commands.

One folder for each subject: streams, api, engines, training, ranking. The measured values are in
results/. A benchmark is run by its short name from any of these folders: `python -m
benchmarks.ingest` runs streams/ingest.py.
"""

from pathlib import Path

__path__ += [
    str(Path(__file__).parent / subject)
    for subject in ("streams", "api", "engines", "training", "ranking")
]
