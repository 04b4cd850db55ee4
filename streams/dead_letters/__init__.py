"""Replays dead letters, and prints them: messages that are no valid event.

store/dead_letters reads and corrects them; `replay` sends them again, `command` prints the results.
"""
