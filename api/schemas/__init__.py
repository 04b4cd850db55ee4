"""The shape of every answer, as the OpenAPI page shows it: `answers`, and `models` for the routes
about bundles.
"""
