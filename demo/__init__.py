"""Runs the whole loop on this machine: servers, processes, a first run (`make demo`).

Starts the other rooms as child processes; imports only core and testing. Start
reading at __main__.py, which has the stages; stack.py starts and stops the processes, answers.py
reads over HTTP.
"""
