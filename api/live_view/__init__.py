"""The live view: the recommender that every answer of this process comes from, kept up to date.

`view` swaps it; `catalogue`, `new_items` and `popularity` follow Redis; `bundles` loads what the
registry's pointer names; `snapshot` is the copy of the catalogue on disk. Start with `view`.
"""
