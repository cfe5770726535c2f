"""The source `files`: JSONL files in local folders and in S3 buckets."""
