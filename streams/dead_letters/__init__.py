"""Messages that are no valid event: `letters` reads, mends and replays them, `command` is the
command line.

Start with `letters`.
"""
