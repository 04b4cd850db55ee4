"""Checks around every request: limits, keys, rates, time.

`guard` calls `auth` and `rate_limit` and ends late requests; `deadline` is the time-out of the
running request; `budget` limits expensive routes. Start with `guard`.
"""
