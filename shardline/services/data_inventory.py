"""Where personal data can lie, for how long, and what `delete` does to it: `doctor --data`."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shardline.cli.console import size
from shardline.services.client import Client
from shardline.services.wiring import open_broker, open_store
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
from shardline_common.job.state import JobState
from shardline_common.ports.broker import Broker
from shardline_common.ports.store import ObjectStore
from shardline_common.settings.load import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """One place: what of a person it can hold, how long it keeps it, and what `delete` does there."""

    place: str
    holds: str
    kept: str
    deleted: str

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


PLACES = (
    Place(
        f"topic {ATTEMPT_TOPICS}ID.N",
        "documents, whole",
        "until the chain holds them, at most SHARDLINE_TOPIC_GRACE_SECONDS after the job's end",
        "the topics of all attempts are deleted",
    ),
    Place(
        f"topic {DEAD_LETTERS}",
        "what could not be a document: up to 64 KiB of it (none with SHARDLINE_DEAD_LETTER_ORIGINALS=false)",
        "30 days",
        "a tombstone for each; the brokers' compaction then drops the bytes",
    ),
    Place(f"topic {EVENTS}", "counts only, no document", "7 days", "nothing; they run out"),
    Place(
        f"topic {CHECKPOINTS}",
        "the job (query, filters, submitted_by, purpose, labels), counts, names of columns",
        "for ever, the last state of each job",
        "stays: it says that the job is deleted",
    ),
    Place(
        f"topic {JOBS}",
        "the job, and who asked for a cancel, a retry or a delete",
        "for ever",
        "stays: an id is never given twice",
    ),
    Place("_jobs/ID.json", "the job", "for ever", "stays, for the same reason"),
    Place("NAME/ID/data/", "rows: texts and metadata", "until deleted", "removed"),
    Place("NAME/ID/rejected/", "ids, reasons, scores (with keep_rejected)", "until deleted", "removed"),
    Place(
        "NAME/ID/_state/",
        "chain: counts and positions; plan parts: ids of documents, with their scores",
        "until deleted",
        "removed",
    ),
    Place(
        "NAME/ID/manifest.json, README.md",
        "the job, counts, columns, the card's submitted_by and purpose",
        "until deleted",
        "removed",
    ),
    Place("_exports/NAME/ID/", "rows, as one file", "until deleted", "removed"),
    Place(
        "spool of a worker",
        "rows of open segments",
        "until their segment has landed; a killed worker's until the next starts on that disk",
        "nothing of an ended job is there",
    ),
    Place(
        "temporary folder of a gateway",
        "ids of a stream's documents; an export while it is made",
        "as long as the stream or the export",
        "nothing is there afterwards",
    ),
    Place(
        "audit log of a gateway",
        "who did what and when; never a query or a document",
        "as long as whoever keeps the log keeps it",
        "stays: it tells who deleted",
    ),
    Place("logs", "names of jobs, files and users; never a document", "as the logs are kept", "stay"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a job has there now."""

    place: str
    found: str

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


async def look_for(settings: Settings, job_id: str) -> list[Found]:
    """What there is of one job, in every place that can be seen from here.

    Raises:
        JobUnknown: no job has this id.
        ServiceUnavailable: Kafka or the store cannot be asked.
    """
    async with open_broker(settings) as broker:
        client = Client(broker, settings.jobs_partitions)
        state = (await client.board()).job(job_id).state
        found = await _topics(broker, client, state)
    if settings.s3_bucket is not None:
        async with open_store(settings) as (store, _):
            found += await _objects(store, state)
    return [*found, _spool(settings.spool_dir)]


async def _topics(broker: Broker, client: Client, state: JobState) -> list[Found]:
    job_id = state.spec.job_id
    attempts = [name for name in await broker.topics() if (parsed(name) or ("",))[0] == job_id]
    letters = [one for one in (await client.letters()).values() if one.job_id == job_id]
    return [
        Found(f"topic {ATTEMPT_TOPICS}{job_id}.N", ", ".join(attempts) or "none"),
        Found(f"topic {DEAD_LETTERS}", f"{len(letters):,} letters of this job"),
        Found(f"topic {CHECKPOINTS}", f"the job is {state.state}"),
    ]


async def _objects(store: ObjectStore, state: JobState) -> list[Found]:
    layout = Layout.of(state.spec)
    inside = ("data/", "rejected/", "_state/", "manifest.json", "README.md")
    prefixes = [job_key(state.spec.job_id), *(layout.root + name for name in inside), layout.exports]
    return [Found(f"{store.uri}/{prefix}", await _counted(store, prefix)) for prefix in prefixes]


async def _counted(store: ObjectStore, prefix: str) -> str:
    count = total = 0
    async for info in store.list(prefix):
        count, total = count + 1, total + info.size
    return f"{count:,} objects, {size(total)}" if count else "none"


def _spool(folder: Path) -> Found:
    count = sum(1 for _ in folder.glob("shardline-*/segment-*"))
    return Found(f"spool {folder} on this machine", f"{count:,} open segments of all jobs")
