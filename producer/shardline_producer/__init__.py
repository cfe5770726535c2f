"""The producer: streams the documents of jobs from their sources into Kafka."""
