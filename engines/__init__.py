"""Scoring, routing and blending, for the API and the offline evaluation alike. Does no I/O.

`recommender` answers requests, `builder` builds recommenders, `explain` explains answers, `router`
picks the engine. One file for each engine: `als`, `content`, `popular`, `two_tower` and
`blending/ensemble`. `selection/` filters, reranks and explores. Start with `recommender`.
"""
