"""The dashboard of one active job."""

from deploy.dashboards.model import (
    BYTES,
    DOCUMENTS,
    SECONDS,
    SHARE,
    DashboardSpec,
    PanelKind,
    PanelSpec,
    quantile,
    rate,
)

_JOB = '{dataset_job="$dataset_job"}'

_STATUS = (
    PanelSpec(
        "Progress",
        "Share of the job that is done: read from the source and held by the chains, and if it is assembled "
        "also decided and assembled.",
        {"done": f"max (shardline_job_progress_ratio{_JOB})"},
        SHARE,
        PanelKind.FIGURES,
        width=4,
        ceiling=1,
    ),
    PanelSpec(
        "Time left",
        "At the rate since this producer runs the job.",
        {"left": f"max (shardline_job_eta_seconds{_JOB})"},
        SECONDS,
        PanelKind.FIGURES,
        width=4,
    ),
    PanelSpec(
        "Lag",
        "Messages produced that are in no chain yet.",
        {"lag": f"sum (shardline_lag_documents{_JOB})"},
        kind=PanelKind.FIGURES,
        width=4,
    ),
    PanelSpec(
        "Age of the lag",
        "Age of the oldest message that is in no chain yet.",
        {"age": f"max (shardline_lag_seconds{_JOB})"},
        SECONDS,
        PanelKind.FIGURES,
        width=4,
    ),
    PanelSpec(
        "Without progress",
        "Time since something of this unfinished job was sent or committed.",
        {"still": f"max (shardline_job_stalled_seconds{_JOB})"},
        SECONDS,
        PanelKind.FIGURES,
        width=4,
        warn=300,
        bad=600,
        alert="ShardlineNoProgress",
    ),
    PanelSpec(
        "Backlog",
        "Messages in the job's topic that are in no chain yet, as a share of their limit.",
        {"waiting": f"max (shardline_backlog_ratio{_JOB})"},
        SHARE,
        PanelKind.FIGURES,
        width=4,
        warn=0.8,
        bad=0.95,
        alert="ShardlineLagGrows",
    ),
)
_FUNNEL = (
    PanelSpec(
        "From source to dataset",
        "Messages produced, kept, rejected and dead, over all attempts, as counted by the chains.",
        {"{{stage}}": f"sort_desc (max by (stage) (shardline_job_documents{_JOB}))"},
        kind=PanelKind.BARS,
        width=6,
    ),
    PanelSpec(
        "Progress over time",
        "Share of the job that is done.",
        {"done": f"max (shardline_job_progress_ratio{_JOB})"},
        SHARE,
        width=6,
        ceiling=1,
    ),
    PanelSpec(
        "Stages",
        "Share of each stage of an assembled job that is done; a stream has none.",
        {"{{stage}}": f"max by (stage) (shardline_stage_progress_ratio{_JOB})"},
        SHARE,
        width=6,
        ceiling=1,
        alert="ShardlineStageStalled",
    ),
    PanelSpec(
        "Documents",
        "Messages sent and read, and rows in committed shards.",
        {
            "produced": rate("shardline_documents_produced_total", where=_JOB),
            "consumed": rate("shardline_documents_consumed_total", where=_JOB),
            "rows committed": rate("shardline_documents_written_total", where=_JOB),
        },
        DOCUMENTS,
        width=6,
    ),
)
_PARTITIONS = (
    PanelSpec(
        "Slowest partition",
        "Number of the partition with the most lag; -1 when none lags.",
        {"partition": f"max (shardline_slowest_partition{_JOB})"},
        floor=None,
    ),
    PanelSpec(
        "Lag of the slowest partition",
        "Compared with the lag of all partitions. If both are equal, only this partition delays the job.",
        {
            "slowest": f"max (shardline_slowest_partition_lag_documents{_JOB})",
            "all": f"sum (shardline_lag_documents{_JOB})",
        },
        width=16,
    ),
)
_LEFT_OUT = (
    PanelSpec(
        "Rejections",
        "Documents that the filters dropped since these workers joined the job, by reason.",
        {"{{reason}}": f"sum by (reason) (shardline_documents_rejected_total{_JOB})"},
        width=12,
    ),
    PanelSpec(
        "Dead letters",
        "Documents that could not be rows, over all attempts.",
        {"dead": 'max (shardline_job_documents{dataset_job="$dataset_job", stage="dead"})'},
        width=12,
        bad=1,
        alert="ShardlineDeadLetters",
    ),
)
_SOURCE = (
    PanelSpec(
        "Waiting for the source",
        "Time since the oldest request to the source without a response, failed attempts included.",
        {"waiting": f"max (shardline_source_wait_seconds{_JOB})"},
        SECONDS,
        warn=60,
        bad=120,
        alert="ShardlineSourceSlow",
    ),
    PanelSpec(
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
    PanelSpec(
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
    PanelSpec(
        "Shard size",
        "Uncompressed bytes of committed shards.",
        {"median": quantile(0.5, "shardline_shard_bytes", where=_JOB)},
        BYTES,
    ),
    PanelSpec(
        "Put latency",
        "Time of a shard's put, with its retries.",
        {
            "median": quantile(0.5, "shardline_shard_put_duration_seconds", where=_JOB),
            "99 %": quantile(0.99, "shardline_shard_put_duration_seconds", where=_JOB),
        },
        SECONDS,
        warn=30,
    ),
    PanelSpec(
        "Errors of the store",
        "Failed requests to the object store, which are retried.",
        {"errors": rate("shardline_store_errors_total", where=_JOB)},
        "suffix: errors/s",
        bad=0.1,
        alert="ShardlineStoreRefuses",
    ),
)

JOB = DashboardSpec(
    "shardline-job",
    "Shardline: one job",
    "One active job: progress, counts of its documents, source, shards.",
    (
        ("Status", _STATUS),
        ("Flow", _FUNNEL),
        ("Partitions", _PARTITIONS),
        ("Rejections and dead letters", _LEFT_OUT),
        ("Source", _SOURCE),
        ("Shards", _SHARDS),
    ),
    job=True,
)
