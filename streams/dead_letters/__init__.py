"""Lists and replays dead letters: messages that are no valid event.

`letters` reads them, `replay` corrects them and sends them again, `command` prints the results.
Start with `letters`.
"""
