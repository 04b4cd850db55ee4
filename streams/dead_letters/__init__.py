"""Messages that are no valid event: `letters` reads them, `replay` corrects them and sends them
again, `command` is the command line.

Start with `letters`.
"""
