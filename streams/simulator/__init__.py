"""A simulated marketplace: `world` makes people and startups, `events` what they do, `command`
sends it.

Start with `command`.
"""
