"""How several engines' scores become one: `fusion` puts them on one scale and adds them, `ensemble`
is the engine that does so.

`prior` is content's share of popularity. Start with `ensemble`.
"""
