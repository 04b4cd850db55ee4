"""A Kafka broker with SASL, TLS and ACLs, and a server of OAuth tokens."""
