"""Runs real servers and child processes on loopback, for the tests, the demo and the benchmarks.

Start with `process.Child` (a process that ends with its parent) and `server.Server` (a child that
answers on a port). The servers: `redis.RedisServer`, `apache.KafkaBroker`, `tansu.TansuBroker`;
`brokers.broker` picks the broker that this machine can run. No production room imports this one.
"""
