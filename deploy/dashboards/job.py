"""One job, while it is active."""

from deploy.dashboards.model import (
    BYTES,
    DOCUMENTS,
    SECONDS,
    SHARE,
    Board,
    Figure,
    Look,
    quantile,
    rate,
)

_JOB = '{dataset_job="$dataset_job"}'

_STANDING = (
    Figure(
        "Progress",
        "Share of the job that is done: read from the source and held by the chains.",
        {"done": f"max (shardline_job_progress_ratio{_JOB})"},
        SHARE,
        Look.FIGURES,
        width=4,
        ceiling=1,
    ),
    Figure(
        "Time left",
        "At the rate since the producer took the job up.",
        {"left": f"max (shardline_job_eta_seconds{_JOB})"},
        SECONDS,
        Look.FIGURES,
        width=4,
    ),
    Figure(
        "Lag",
        "Messages produced that no chain holds yet.",
        {"lag": f"sum (shardline_lag_documents{_JOB})"},
        look=Look.FIGURES,
        width=4,
    ),
    Figure(
        "Age of the lag",
        "Age of the oldest message that no chain holds yet.",
        {"age": f"max (shardline_lag_seconds{_JOB})"},
        SECONDS,
        Look.FIGURES,
        width=4,
    ),
    Figure(
        "Without progress",
        "Since when nothing of an unfinished job was sent or committed.",
        {"still": f"max (shardline_job_stalled_seconds{_JOB})"},
        SECONDS,
        Look.FIGURES,
        width=4,
        warn=300,
        bad=600,
        alert="ShardlineNoProgress",
    ),
    Figure(
        "Backlog",
        "Share of what the job's topic may hold that no chain holds yet.",
        {"waiting": f"max (shardline_backlog_ratio{_JOB})"},
        SHARE,
        Look.FIGURES,
        width=4,
        warn=0.8,
        bad=0.95,
        alert="ShardlineLagGrows",
    ),
)
_FUNNEL = (
    Figure(
        "From source to dataset",
        "What became of the messages, over all attempts, as far as the chains hold them.",
        {"{{stage}}": f"sort_desc (max by (stage) (shardline_job_documents{_JOB}))"},
        look=Look.BARS,
    ),
    Figure(
        "Progress over time",
        "Share of the job that is done.",
        {"done": f"max (shardline_job_progress_ratio{_JOB})"},
        SHARE,
        ceiling=1,
    ),
    Figure(
        "Documents",
        "Messages sent and read, and rows in committed shards.",
        {
            "produced": rate("shardline_documents_produced_total", where=_JOB),
            "consumed": rate("shardline_documents_consumed_total", where=_JOB),
            "rows committed": rate("shardline_documents_written_total", where=_JOB),
        },
        DOCUMENTS,
    ),
)
_PARTITIONS = (
    Figure(
        "Slowest partition",
        "Number of the partition with the most lag; -1 when none lags.",
        {"partition": f"max (shardline_slowest_partition{_JOB})"},
        floor=None,
    ),
    Figure(
        "Lag of the slowest partition",
        "Beside the lag of all partitions together: the nearer, the more hangs on this one.",
        {
            "slowest": f"max (shardline_slowest_partition_lag_documents{_JOB})",
            "all": f"sum (shardline_lag_documents{_JOB})",
        },
        width=16,
    ),
)
_LEFT_OUT = (
    Figure(
        "Rejections",
        "Documents that the filters dropped since the workers took the job up, by reason.",
        {"{{reason}}": f"sum by (reason) (shardline_documents_rejected_total{_JOB})"},
        width=12,
    ),
    Figure(
        "Dead letters",
        "Documents that could not be rows, over all attempts.",
        {"dead": 'max (shardline_job_documents{dataset_job="$dataset_job", stage="dead"})'},
        width=12,
        bad=1,
        alert="ShardlineDeadLetters",
    ),
)
_SOURCE = (
    Figure(
        "Waiting for the source",
        "For how long the source has been asked without an answer, failed tries included.",
        {"waiting": f"max (shardline_source_wait_seconds{_JOB})"},
        SECONDS,
        warn=60,
        bad=120,
        alert="ShardlineSourceSlow",
    ),
    Figure(
        "Time of a batch",
        "Time that the source took for a batch.",
        {
            "median": quantile(0.5, "shardline_source_batch_duration_seconds", where=_JOB),
            "95 %": quantile(0.95, "shardline_source_batch_duration_seconds", where=_JOB),
        },
        SECONDS,
        warn=30,
        alert="ShardlineSourceSlow",
    ),
    Figure(
        "Age of the last checkpoint",
        "Only while documents are still being sent.",
        {"age": f"time() - max (shardline_checkpoint_timestamp_seconds{_JOB})"},
        SECONDS,
        warn=300,
        bad=900,
        alert="ShardlineCheckpointOld",
    ),
)
_SHARDS = (
    Figure(
        "Shard size",
        "Uncompressed bytes of committed shards.",
        {"median": quantile(0.5, "shardline_shard_bytes", where=_JOB)},
        BYTES,
    ),
    Figure(
        "Put latency",
        "Time of a shard's put, with its retries.",
        {
            "median": quantile(0.5, "shardline_shard_put_duration_seconds", where=_JOB),
            "99 %": quantile(0.99, "shardline_shard_put_duration_seconds", where=_JOB),
        },
        SECONDS,
        warn=30,
    ),
    Figure(
        "Errors of the store",
        "Failed requests to the object store, which are retried.",
        {"errors": rate("shardline_store_errors_total", where=_JOB)},
        "suffix: errors/s",
        bad=0.1,
        alert="ShardlineStoreRefuses",
    ),
)

JOB = Board(
    "shardline-job",
    "Shardline: one job",
    "One active job: progress, what became of its documents, what it waits for.",
    (
        ("Where it stands", _STANDING),
        ("Flow", _FUNNEL),
        ("Partitions", _PARTITIONS),
        ("What is left out", _LEFT_OUT),
        ("Source", _SOURCE),
        ("Shards", _SHARDS),
    ),
    job=True,
)
