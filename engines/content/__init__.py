"""The content-based engine: `engine` scores by a profile of interests and history.

`scoring` gives the reasons, `vectors` holds the TF-IDF vectors of the items. Start with `engine`.
"""
