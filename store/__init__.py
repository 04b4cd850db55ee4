"""Every place where data rests: Redis, the log (Kafka's client side) and the Parquet archive."""
