"""The process around the app: socket, event loop, HTTP connections and their limits.

`process` binds and serves; `protocol` limits sizes, `lifecycle` times, `connections` their number;
`request_head` refuses ambiguous heads, `refusals` are the answers. Start with `process`.
"""
