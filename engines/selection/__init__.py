"""Which items make the list: `filters` of a request, `rerank` for diversity, `explore` for places
given to new items.

Start with `filters`.
"""
