"""Holds trained models as they are stored and used for scoring; trains nothing, loads no pickle.

`registry` publishes and loads bundles, `bundle` is one version with all of its parts, `listing`
summarizes the versions. The kinds of part: `als/`, `content`, `two_tower`, `popular`, `ensemble`.
`files`, `id_map` and `disk` read and write. Start with `bundle`.
"""
