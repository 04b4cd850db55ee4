"""What every request passes: `guard` with its limits and time, `auth` for keys, `rate_limit`;
`budget` bounds expensive routes.

`deadline` is the clock of the request. Start with `guard`.
"""
