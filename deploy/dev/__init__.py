"""The services for development and tests, without Docker: Kafka, SeaweedFS, PostgreSQL and others."""
