"""Trained models as they are stored and used for scoring. Trains nothing and loads no pickle.

`registry` publishes and loads bundles, `bundle` is one version with all of its parts, `listing`
summarizes the versions. One file for each kind of part: `als` (with `als_fold`, `confidence`,
`trained_users`, `new_items`), `content`, `two_tower`, `popular`, `ensemble`. `files`, `id_map` and
`disk` read and write. Start with `bundle`.
"""
