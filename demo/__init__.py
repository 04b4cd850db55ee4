"""Runs the whole loop on this machine: servers, processes, a first run (`make demo`).

Starts the other rooms as child processes; imports none but core and testing.
"""
