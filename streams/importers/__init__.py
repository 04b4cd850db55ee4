"""Events, items and users from files and databases into Kafka."""
