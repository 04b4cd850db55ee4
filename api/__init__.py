"""The HTTP API: routes and answer schemas over a live view of the current bundle.

It holds no business logic.

`app` wires it, `live_view/` holds the current recommender, `service` what routes need; `routes/`,
`schemas/`, `middleware/` and `server/` (the process and its connections). Start with
`routes/reads`.
"""
