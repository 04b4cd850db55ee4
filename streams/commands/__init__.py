"""The options and help of `python -m streams`, one module for each group of commands.

`processes` runs until stopped or once over all data, `sending` writes to Kafka, `dead_letters` and
`inspection` are groups with commands of their own. Each command imports its body when it runs, so
that --help is instant. Start with `streams/__main__.py`.
"""
