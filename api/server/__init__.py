"""The process around the app: `process` binds and serves, `protocol` limits what a connection may
cost, `connections` counts them.

`request_head` refuses ambiguous heads. Start with `process`.
"""
