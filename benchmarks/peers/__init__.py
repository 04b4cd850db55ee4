"""Compares ingest with other stream processors: `python -m benchmarks.peers`.

`on_bytewax`, `on_quix` and `on_faust` run under a Python of their own (requirements/peers.txt),
where the rooms' packages are not installed; with `counts` and `meter` they import nothing of the
rooms.
"""
