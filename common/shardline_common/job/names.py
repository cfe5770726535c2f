"""Names of topics, groups and objects: every place where a name is made."""

import re
from dataclasses import dataclass

from shardline_common.job.spec import JobSpec

JOBS = "dataset.jobs"
CHECKPOINTS = "dataset.checkpoints"
EVENTS = "dataset.events"
DEAD_LETTERS = "dataset.dead-letters"
PRODUCERS = "dataset.producers"
# What the names of all attempts and jobs begin with: rights are given on these.
ATTEMPT_TOPICS = "dataset.job."
ATTEMPT_GROUPS = "dataset.workers."
TRANSACTIONAL_IDS = "dataset.producer."

_ATTEMPT_TOPIC = re.compile(r"dataset\.job\.([a-z0-9][a-z0-9-]*)\.([0-9]+)")
_SUFFIX = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}


def attempt_topic(job_id: str, attempt: int) -> str:
    """Topic of one attempt. The number tells it from an earlier topic: clients know no topic ids."""
    return f"{ATTEMPT_TOPICS}{job_id}.{attempt}"


def parse_attempt_topic(name: str) -> tuple[str, int] | None:
    """Job id and attempt of a topic's name; None for a topic that is no attempt's."""
    found = _ATTEMPT_TOPIC.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def attempt_group(job_id: str, attempt: int) -> str:
    """Consumer group of one attempt: a job's start or end disturbs no other job's group."""
    return f"{ATTEMPT_GROUPS}{job_id}.{attempt}"


def transactional_id(job_id: str) -> str:
    """The one id under which a job's producers fence each other."""
    return f"{TRANSACTIONAL_IDS}{job_id}"


def job_key(job_id: str) -> str:
    """The acceptance record of a job."""
    return f"_jobs/{job_id}.json"


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys of one dataset, relative to the store's root."""

    root: str
    compression: str = "none"

    @classmethod
    def of(cls, spec: JobSpec) -> "Layout":
        """The layout of a job's dataset."""
        return cls(f"{spec.slug}/{spec.job_id}/", spec.output.compression)

    def data(self, split: str, partition: int, first: int) -> str:
        """The shard of the segment that starts at sequence `first`."""
        return f"{self.root}data/{split}/part-{partition:05d}-{first:012d}{_SUFFIX[self.compression]}"

    def rejected(self, partition: int, first: int) -> str:
        """What the filters dropped in that segment, with keep_rejected."""
        return f"{self.root}rejected/part-{partition:05d}-{first:012d}{_SUFFIX[self.compression]}"

    def chain(self, partition: int) -> str:
        """Prefix of a partition's chain."""
        return f"{self.root}_state/chain/{partition:05d}/"

    def link(self, partition: int, first: int) -> str:
        """The chain record of the segment that starts at `first`."""
        return f"{self.chain(partition)}{first:012d}.json"

    def outcome(self, attempt: int) -> str:
        """The record that decides an attempt."""
        return f"{self.root}_state/outcome-{attempt}.json"

    @property
    def plan(self) -> str:
        """What the source froze, and the columns, before the first message."""
        return f"{self.root}_state/plan.json"

    @property
    def plan_parts(self) -> str:
        """Prefix of the parts of a planned source: which documents there are to read, in order."""
        return f"{self.root}_state/plan/"

    @property
    def exports(self) -> str:
        """Prefix of the single files made of the dataset: apart from it, so that no glob reads rows twice."""
        return f"_exports/{self.root}"

    @property
    def manifest(self) -> str:
        """The dataset's table of contents and proof."""
        return f"{self.root}manifest.json"

    @property
    def card(self) -> str:
        """The dataset card."""
        return f"{self.root}README.md"

    @property
    def success(self) -> str:
        """Written last: the dataset is whole."""
        return f"{self.root}_SUCCESS"
