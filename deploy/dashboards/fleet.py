"""The dashboard of the fleet: all producers and workers together."""

from deploy.dashboards.model import (
    BYTES,
    BYTES_PER_SECOND,
    DOCUMENTS,
    RATE,
    SECONDS,
    SHARE,
    DashboardSpec,
    PanelKind,
    PanelSpec,
    quantile,
    rate,
)

# Memory and CPU are metrics of every process that Prometheus scrapes; only Shardline's have build_info.
_SHARDLINE_ONLY = "and on (instance, job) shardline_build_info"


def _webhooks(outcome: str) -> str:
    return f'sum (round(increase(shardline_webhooks_total{{outcome="{outcome}"}}[15m])))'


_NOW = (
    PanelSpec(
        "Active jobs",
        "Jobs that are queued, running or completing.",
        {"{{state}}": 'sum by (state) (shardline_jobs{state=~"queued|running|completing"})'},
        kind=PanelKind.FIGURES,
    ),
    PanelSpec(
        "Attempts that ended",
        "In the time shown, by how they ended.",
        {"{{ending}}": "sum by (ending) (round(increase(shardline_attempts_ended_total[$__range])))"},
        kind=PanelKind.FIGURES,
        alert="ShardlineJobFailed",
    ),
    PanelSpec(
        "Alerts",
        "Alerts that fire now. A click leads to the runbook.",
        {
            "alerts": "sum by (alertname, severity, dataset_job, instance) "
            '(ALERTS{alertname=~"Shardline.*", alertstate="firing"})'
        },
        kind=PanelKind.TABLE,
        floor=None,
    ),
)
_THROUGHPUT = (
    PanelSpec(
        "Documents",
        "Messages sent by producers, read by workers, and rows in committed shards.",
        {
            "produced": rate("shardline_documents_produced_total"),
            "consumed": rate("shardline_documents_consumed_total"),
            "rows committed": rate("shardline_documents_written_total"),
        },
        DOCUMENTS,
        width=12,
    ),
    PanelSpec(
        "Bytes committed",
        "Uncompressed bytes of rows in committed shards. It grows in steps, a whole shard each.",
        {"rows committed": rate("shardline_bytes_written_total")},
        BYTES_PER_SECOND,
        width=12,
    ),
)
_LAG = (
    PanelSpec(
        "Lag",
        "Messages produced that are in no chain yet. Those of open segments are included.",
        {"{{dataset_job}}": "sum by (dataset_job) (shardline_lag_documents)"},
        by_job=True,
    ),
    PanelSpec(
        "Age of the lag",
        "Age of the oldest message that is in no chain yet.",
        {"{{dataset_job}}": "max by (dataset_job) (shardline_lag_seconds)"},
        SECONDS,
        by_job=True,
    ),
    PanelSpec(
        "Backlog",
        "Messages of a job in no chain yet, as a share of the topic's limit. At 100 % its producer waits.",
        {"{{dataset_job}}": "max by (dataset_job) (shardline_backlog_ratio)"},
        SHARE,
        warn=0.8,
        bad=0.95,
        alert="ShardlineLagGrows",
        by_job=True,
    ),
)
_LEFT_OUT = (
    PanelSpec(
        "Rejections",
        "Documents that the filters dropped, by reason.",
        {"{{reason}}": rate("shardline_documents_rejected_total", "reason")},
        DOCUMENTS,
        width=12,
    ),
    PanelSpec(
        "Dead letters",
        "Dead letters sent in the last 15 minutes, of documents and of job messages.",
        {"{{of}}": "sum by (of) (round(increase(shardline_dead_letters_sent_total[15m])))"},
        width=12,
        bad=1,
        alert="ShardlineDeadLetters",
    ),
)
_SHARDS = (
    PanelSpec(
        "Shard size",
        "Uncompressed bytes of committed shards.",
        {
            "median": quantile(0.5, "shardline_shard_bytes"),
            "95 %": quantile(0.95, "shardline_shard_bytes"),
        },
        BYTES,
    ),
    PanelSpec(
        "Put latency",
        "Time of a shard's put, with its retries.",
        {
            "median": quantile(0.5, "shardline_shard_put_duration_seconds"),
            "99 %": quantile(0.99, "shardline_shard_put_duration_seconds"),
        },
        SECONDS,
        warn=30,
    ),
    PanelSpec(
        "Transaction latency",
        "Time of a Kafka transaction: documents and their checkpoint.",
        {
            "median": quantile(0.5, "shardline_transaction_duration_seconds"),
            "99 %": quantile(0.99, "shardline_transaction_duration_seconds"),
        },
        SECONDS,
        warn=10,
    ),
)
_ERRORS = (
    PanelSpec(
        "Errors of the store",
        "Failed requests to the object store, which are retried.",
        {"{{dataset_job}}": rate("shardline_store_errors_total", "dataset_job")},
        "suffix: errors/s",
        width=6,
        bad=0.1,
        alert="ShardlineStoreRefuses",
        by_job=True,
    ),
    PanelSpec(
        "Failing retries",
        "Seconds for which the longest failing call of a process has been retried.",
        {"{{instance}}": "shardline_in_vain_seconds"},
        SECONDS,
        width=6,
        warn=60,
        bad=300,
        alert="ShardlineStoreRefuses",
    ),
    PanelSpec(
        "Crashes and lost responses",
        "Messages read again, and creates that found their own object. Harmless; many are a sign of crashes.",
        {
            "replayed": rate("shardline_records_replayed_total"),
            "creates refused": rate("shardline_creates_refused_total"),
        },
        width=6,
    ),
    PanelSpec(
        "Notifications given up",
        "Attempts of the webhook in the last 15 minutes that failed, and notifications that were given up.",
        {
            "failed": _webhooks("failed"),
            "given up": _webhooks("given_up"),
        },
        width=6,
        bad=1,
        alert="ShardlineWebhookGivenUp",
    ),
)
_SOURCES = (
    PanelSpec(
        "Waiting for the source",
        "Time since the oldest request to a source without a response, failed attempts included.",
        {"{{dataset_job}}": "max by (dataset_job) (shardline_source_wait_seconds)"},
        SECONDS,
        warn=60,
        bad=120,
        alert="ShardlineSourceSlow",
        by_job=True,
    ),
    PanelSpec(
        "Time of a batch",
        "Time that a source took for a batch.",
        {
            "median": quantile(0.5, "shardline_source_batch_duration_seconds"),
            "95 %": quantile(0.95, "shardline_source_batch_duration_seconds"),
        },
        SECONDS,
        warn=30,
        alert="ShardlineSourceSlow",
    ),
    PanelSpec(
        "Age of the last checkpoint",
        "For jobs that have documents left to send.",
        {"{{dataset_job}}": "time() - max by (dataset_job) (shardline_checkpoint_timestamp_seconds)"},
        SECONDS,
        warn=300,
        bad=900,
        alert="ShardlineCheckpointOld",
        by_job=True,
    ),
)
_PROCESSES = (
    PanelSpec(
        "Memory",
        "Resident memory of each process.",
        {"{{job}} {{instance}}": f"process_resident_memory_bytes {_SHARDLINE_ONLY}"},
        BYTES,
        width=6,
    ),
    PanelSpec(
        "CPU",
        "Cores that each process uses.",
        {"{{job}} {{instance}}": f"rate(process_cpu_seconds_total[{RATE}]) {_SHARDLINE_ONLY}"},
        width=6,
    ),
    PanelSpec(
        "Spool",
        "Bytes that open segments have reserved, and bytes that they have written.",
        {
            "reserved": "sum (shardline_spool_bytes)",
            "written": "sum (shardline_spool_written_bytes)",
        },
        BYTES,
        width=6,
    ),
    PanelSpec(
        "Room for the spool",
        "For each worker: free bytes of the disk plus bytes written by the spool, less the spool's limit.",
        {
            "{{instance}}": "shardline_spool_disk_free_bytes + shardline_spool_written_bytes "
            "- (shardline_spool_limit_bytes > 0)"
        },
        BYTES,
        width=6,
        floor=None,
        alert="ShardlineSpoolDiskLow",
    ),
)

FLEET = DashboardSpec(
    "shardline-fleet",
    "Shardline: fleet",
    "All producers and workers: throughput, lag, errors, rejections and dead letters.",
    (
        ("Now", _NOW),
        ("Throughput", _THROUGHPUT),
        ("Lag", _LAG),
        ("Rejections and dead letters", _LEFT_OUT),
        ("Sources", _SOURCES),
        ("Shards", _SHARDS),
        ("Errors", _ERRORS),
        ("Processes", _PROCESSES),
    ),
)
