"""Streams documents of jobs from their sources into Kafka."""
