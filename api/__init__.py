"""The HTTP API: routes and response schemas over a live view of the current bundle. No business logic lives here."""
