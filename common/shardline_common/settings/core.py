"""The settings of the store, the spool, producer and worker, and the commands."""

import tempfile
from pathlib import Path

from pydantic import BaseModel, SecretStr

from shardline_common.settings.fields import setting


class CoreSettings(BaseModel):
    """The settings of producer, worker and the commands."""

    aws_access_key_id: str | None = setting(
        None, "S3 access key; none: the AWS chain", "AWS_ACCESS_KEY_ID", in_file=True
    )
    aws_secret_access_key: SecretStr | None = setting(
        None, "secret of the S3 access key", "AWS_SECRET_ACCESS_KEY"
    )
    aws_session_token: SecretStr | None = setting(None, "token of temporary keys", "AWS_SESSION_TOKEN")
    aws_region: str | None = setting(None, "S3 region", "AWS_REGION", "AWS_DEFAULT_REGION")
    aws_endpoint_url_s3: str | None = setting(
        None,
        "URL of an S3-compatible store; none: AWS",
        "AWS_ENDPOINT_URL_S3",
        "AWS_ENDPOINT_URL",
        "S3_ENDPOINT_URL",
    )
    aws_ca_bundle: str | None = setting(None, "CA bundle (PEM) for the store", "AWS_CA_BUNDLE")
    s3_bucket: str | None = setting(None, "bucket of datasets", "S3_BUCKET")
    s3_prefix: str = setting("", "prefix of all keys in the bucket", "S3_PREFIX")
    s3_addressing_style: str = setting(
        "auto",
        "how requests name the bucket: auto, path or virtual",
        "S3_ADDRESSING_STYLE",
        pattern="^(auto|path|virtual)$",
    )
    s3_encryption: str | None = setting(
        None,
        "server-side encryption of each put: AES256, aws:kms or aws:kms:dsse",
        "S3_ENCRYPTION",
        "S3_SERVER_SIDE_ENCRYPTION",
        pattern="^(AES256|aws:kms|aws:kms:dsse)$",
    )
    s3_kms_key_id: str | None = setting(None, "key id for aws:kms; none: the bucket's key", "S3_KMS_KEY_ID")
    s3_timeout_seconds: float = setting(
        60.0, "read time-out of one request to the store", "SHARDLINE_S3_TIMEOUT_SECONDS", gt=0
    )
    spool_dir: Path = setting(
        Path(tempfile.gettempdir()),
        "folder for open segments, and copies of Parquet and Arrow files while they are read",
        "SHARDLINE_SPOOL_DIR",
    )
    spool_bytes: int = setting(
        8 << 30, "bytes of spool of one worker, over all jobs", "SHARDLINE_SPOOL_BYTES", ge=1 << 20
    )
    uploads: int = setting(4, "shards that one worker uploads at once", "SHARDLINE_UPLOADS", ge=1, le=64)
    decide_memory_bytes: int = setting(
        512 << 20,
        "memory that the decision about an assembled dataset may take; what does not fit goes to the spool",
        "SHARDLINE_DECIDE_MEMORY_BYTES",
        ge=64 << 20,
    )
    spool_reserve_bytes: int = setting(
        256 << 20, "bytes of free disk that the spool does not use", "SHARDLINE_SPOOL_RESERVE_BYTES", ge=0
    )
    processes: int | None = setting(
        None,
        "processes among which `run` divides large files of lines, and `verify` a large dataset; none: one "
        "for each core, for `run` up to 4",
        "SHARDLINE_PROCESSES",
        ge=1,
        le=1024,
    )
    max_jobs: int = setting(4, "jobs that one producer runs at once", "SHARDLINE_MAX_JOBS", ge=1)
    topic_limit_bytes: int = setting(
        1 << 30,
        "bytes in a job's topic that are not in the chain yet; raised when open segments need more",
        "SHARDLINE_TOPIC_LIMIT_BYTES",
        ge=1 << 20,
    )
    topic_grace_seconds: float = setting(
        60.0,
        "seconds after the end of an attempt until its topic is deleted",
        "SHARDLINE_TOPIC_GRACE_SECONDS",
        ge=0,
    )
    source_patience_seconds: float = setting(
        900.0,
        "seconds after which an unreachable source fails its job",
        "SHARDLINE_SOURCE_PATIENCE_SECONDS",
        ge=0,
    )
    stuck_seconds: float = setting(
        300.0,
        "seconds of failing retries after which /readyz answers 503",
        "SHARDLINE_STUCK_SECONDS",
        gt=0,
    )
    sweep_seconds: float = setting(
        300.0,
        "seconds between two sweeps of orphan topics and staged rows",
        "SHARDLINE_SWEEP_SECONDS",
        gt=0,
    )
    shutdown_grace_seconds: float = setting(
        25.0, "seconds to end after SIGTERM", "SHARDLINE_SHUTDOWN_GRACE_SECONDS", ge=0
    )
    progress_seconds: float = setting(
        1.0, "seconds between two reads of the chains by a producer", "SHARDLINE_PROGRESS_SECONDS", gt=0
    )
    source_rate: float = setting(
        0.0, "documents per second that a job may read; 0: no limit", "SHARDLINE_SOURCE_RATE", ge=0
    )
    dead_letter_originals: bool = setting(
        True,
        "keep the original bytes in dead letters: in dataset.dead-letters, and in the datasets of jobs that "
        "leave dead_letter_originals out",
        "SHARDLINE_DEAD_LETTER_ORIGINALS",
    )
    signing_key: SecretStr | None = setting(
        None,
        "private Ed25519 key (PEM) that signs finished datasets; none: they have no signature",
        "SHARDLINE_SIGNING_KEY",
    )
    files_root: Path = setting(Path(), "folder of the files that a producer may read", "FILES_ROOT")
    metrics_port: int = setting(
        9310,
        "port of /metrics, /healthz and /readyz; 0: any free port",
        "SHARDLINE_METRICS_PORT",
        old=("CLARA_METRICS_PORT",),
        ge=0,
        le=65535,
    )
    metrics_host: str = setting(
        "0.0.0.0",  # noqa: S104 - scraped from outside of its container
        "address of /metrics, /healthz and /readyz",
        "SHARDLINE_METRICS_HOST",
    )
    log_level: str = setting(
        "INFO",
        "lowest level that is logged: DEBUG, INFO, WARNING or ERROR",
        "LOG_LEVEL",
        old=("CLARA_LOG_LEVEL",),
        pattern="^(DEBUG|INFO|WARNING|ERROR)$",
    )
    log_format: str = setting(
        "auto",
        "json, console, or auto: console on a terminal and in interactive commands, else JSON",
        "SHARDLINE_LOG_FORMAT",
        pattern="^(auto|json|console)$",
    )
