"""The source files: JSONL files on this machine and on S3."""
