"""The whole loop on this machine: servers, processes, a first run.

Spawns the other rooms, imports none but core.
"""
