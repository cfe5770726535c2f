"""Kafka as the broker. The only importer of aiokafka."""
