"""Scoring, routing and blending, for the API and the offline evaluation alike. Does no I/O.

`recommender` answers requests, `builder` builds recommenders, `explain` explains answers, `router`
picks the engine. The engines are `als`, `content/`, `popular`, `two_tower` and `blending/`.
`selection/` filters, reranks and explores. Start with `recommender`.
"""
