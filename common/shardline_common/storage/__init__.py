"""Object stores: S3 and a local directory. The only importer of aioboto3 and botocore."""
