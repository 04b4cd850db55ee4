"""Deleted users and items: `recovery` brings every deletion of the log into Redis before older
events are applied, `later_events` keeps the events that came after a deletion, `out_of_reach` drops
deletions that are no longer needed. Start with `recovery`.
"""
