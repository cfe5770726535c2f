"""Where personal data can be stored, for how long, and what `delete` does to it: `doctor --data`."""

from dataclasses import asdict, dataclass
from typing import Any

from shardline.services.client import Client
from shardline.services.units import format_size
from shardline.services.wiring.broker import open_broker
from shardline.services.wiring.stores import open_store
from shardline_common.job.names import (
    ATTEMPT_TOPICS,
    CHECKPOINTS,
    DEAD_LETTERS,
    EVENTS,
    JOBS,
    Layout,
    job_key,
)
from shardline_common.job.names import parse_attempt_topic as parsed
from shardline_common.ports.store import ObjectStore
from shardline_common.settings.load import Settings


@dataclass(frozen=True, slots=True)
class DataLocation:
    """A place: the personal data that it can hold, how long it keeps them, and the effect of `delete`."""

    place: str
    holds: str
    kept: str
    deleted: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as `doctor --data --json` prints them."""
        return asdict(self)


DATA_LOCATIONS = (
    DataLocation(
        f"topic {ATTEMPT_TOPICS}ID.N",
        "documents, whole",
        "until the chain holds them, at most SHARDLINE_TOPIC_GRACE_SECONDS after the job's end",
        "the topics of all attempts are deleted",
    ),
    DataLocation(
        f"topic {DEAD_LETTERS}",
        "input that is not a document: up to 64 KiB (none with SHARDLINE_DEAD_LETTER_ORIGINALS=false)",
        "30 days",
        "a tombstone for each; the brokers' compaction then drops the bytes",
    ),
    DataLocation(f"topic {EVENTS}", "counts only, no document", "7 days", "none; they expire"),
    DataLocation(
        f"topic {CHECKPOINTS}",
        "the job (query, filters, submitted_by, purpose, labels), its owner, counts, names of columns",
        "without limit, the last state of each job",
        "stays: it records that the job is deleted",
    ),
    DataLocation(
        f"topic {JOBS}",
        "the job, its owner, and who requested a cancel, a retry or a delete",
        "without limit",
        "stays: an id is never used twice",
    ),
    DataLocation(
        "_jobs/ID.json",
        "the job, and of a gateway's job the subject of its owner's token",
        "without limit",
        "stays, for the same reason",
    ),
    DataLocation("NAME/ID/data/", "rows: texts and metadata", "until deleted", "removed"),
    DataLocation(
        "NAME/ID/rejected/",
        "ids, reasons, scores (with keep_rejected), and texts (with keep_rejected full)",
        "until deleted",
        "removed",
    ),
    DataLocation(
        "NAME/ID/dead-letters/",
        "input that is not a document: up to 64 KiB (none with dead_letter_originals false in the job)",
        "until deleted",
        "removed",
    ),
    DataLocation(
        "NAME/ID/_state/",
        "chain: counts and positions; plan pages: ids of documents; of an assembled dataset the ids of all "
        "documents, with reasons, and hashes of their texts and groups, which show what is alike",
        "until deleted",
        "removed",
    ),
    DataLocation(
        "NAME/ID/manifest.json, README.md",
        "the job, counts, columns, the card's submitted_by and purpose",
        "until deleted",
        "removed",
    ),
    DataLocation(
        "_staged/NAME/ID/",
        "rows of an assembled dataset that is not complete",
        "until its shards are assembled (with output.keep_staged until deleted)",
        "removed",
    ),
    DataLocation("_exports/NAME/ID/", "rows, as one file", "until deleted", "removed"),
    DataLocation(
        "_plans/NAME/ID/",
        "of searches: ids of documents, with their scores; of local files: digests",
        "until deleted",
        "removed",
    ),
    DataLocation(
        "spool of a worker",
        "rows of open segments",
        "until their segment is committed; a killed worker's until the next starts on that disk",
        "none; an ended job has no open segments",
    ),
    DataLocation(
        "temporary folder of a gateway",
        "ids of a stream's documents; an export while it is made",
        "as long as the stream or the export",
        "none; the files are removed at the end",
    ),
    DataLocation(
        "audit log of a gateway",
        "who did what and when, with subject, name and roles; never a query or a document",
        "GATEWAY_AUDIT_LOG_FILES files of GATEWAY_AUDIT_LOG_BYTES",
        "stays: it records who deleted",
    ),
    DataLocation("logs", "names of jobs, files and users; never a document", "as the logs are kept", "stay"),
)


@dataclass(frozen=True, slots=True)
class DataFinding:
    """A place, and the data of one job that were found there."""

    place: str
    found: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as `doctor --data --json` prints them."""
        return asdict(self)


async def find_data(settings: Settings, job_id: str) -> list[DataFinding]:
    """Find the data of one job in Kafka, in the store of the settings and on this machine.

    Raises:
        JobUnknown: no job has this id.
        ServiceUnavailable: Kafka or the store cannot be reached.
    """
    async with open_broker(settings) as broker:
        client = Client(broker, settings.jobs_partitions)
        state = (await client.job_table()).job(job_id).state
        attempts = [name for name in await broker.topics() if (parsed(name) or ("",))[0] == job_id]
        dead_letters = [item for item in (await client.dead_letters()).values() if item.job_id == job_id]
    found = [
        DataFinding(f"topic {ATTEMPT_TOPICS}{job_id}.N", ", ".join(attempts) or "none"),
        DataFinding(f"topic {DEAD_LETTERS}", f"{len(dead_letters):,} dead letters of this job"),
        DataFinding(f"topic {CHECKPOINTS}", f"the job is {state.state}"),
    ]
    if settings.s3_bucket is not None:
        layout = Layout.of(state.spec)
        inside = ("data/", "rejected/", "dead-letters/", "_state/", "manifest.json", "README.md")
        outside = (layout.staged_root, layout.exports, layout.rankings)
        prefixes = [job_key(job_id), *(layout.root + name for name in inside), *outside]
        async with open_store(settings) as (store, _):
            found += [
                DataFinding(f"{store.uri}/{prefix}", await _count(store, prefix)) for prefix in prefixes
            ]
    segments = sum(1 for _ in settings.spool_dir.glob("shardline-*/segment-*"))
    where = f"spool {settings.spool_dir} on this machine"
    return [*found, DataFinding(where, f"{segments:,} open segments of all jobs")]


async def _count(store: ObjectStore, prefix: str) -> str:
    count = total = 0
    async for info in store.list(prefix):
        count, total = count + 1, total + info.size
    return f"{count:,} objects, {format_size(total)}" if count else "none"
