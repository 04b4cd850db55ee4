"""The answers and bodies of the API: one msgspec struct each, encoded as it is and documented from
its fields.

`answers`, and `models` for the routes about bundles; `bodies` of writes; `read_query` for the query
string of reads; `document` makes the OpenAPI schemas. Recommendations are core.types, explanations
engines.explain, so that reads encode what the engines return.
"""
