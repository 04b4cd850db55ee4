"""`python -m engines`: `options` declares what the commands share, `terminal` prints answers.

The commands are in `engines/__main__.py`.
"""
