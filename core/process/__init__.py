"""What every process of Eddyline shares: command line, logs, stop, background work.

`cli` runs a command and reports its errors, `logs` configures structured logs, `stop` limits the
time that a process takes to stop, `background` keeps long work from slowing down other threads.
"""
