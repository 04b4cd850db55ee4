"""One module for each group of routes; `routing` registers them, `query` parses query strings,
`openapi` serves the documentation.

Start with `reads`.
"""
