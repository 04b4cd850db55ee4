"""Everything that touches Kafka: ingest, archive, rebuild, imports, the simulator, dead letters."""
