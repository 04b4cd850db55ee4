"""Scoring, routing and blending: the one path that the API and the offline evaluation share. Does no I/O.

`recommender` answers, `builder` makes recommenders, `explain` says why; one file an engine (`als`, `content`, `popular`, `two_tower`,
`blending/ensemble`). `selection/` holds what decides which items make the list. Start with `recommender`.
"""
