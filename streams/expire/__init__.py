"""Bounds Redis in time: removes what is too old to matter. Start with `command`."""
