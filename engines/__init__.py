"""Scoring, routing and blending: the one path that the API and the offline evaluation share. Does no I/O."""
