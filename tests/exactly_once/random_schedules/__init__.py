"""Random schedules: traffic of every kind while a random list of faults strikes.

At the end Redis, the dead letters and the archive must equal the oracle. `schedule` plans and runs
one schedule, `faults` lists the faults, `world` has the processes, servers and topics of a
schedule. `python -m tests.exactly_once.random_schedules` runs many. Start with `schedule`.
"""
