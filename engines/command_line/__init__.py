"""`python -m engines`: `options` declares what the commands share, `requests`
makes requests of them, `terminal` prints answers.

The commands are in `engines/__main__.py`.
"""
