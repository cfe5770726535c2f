"""Kafka and SeaweedFS for development and tests, without Docker."""
