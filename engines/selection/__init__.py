"""Selects the items of a list.

`filters` of a request, `rerank` for diversity, `explore` for new items.

`columns` indexes the catalogue for the filters. Start with `filters`.
"""
