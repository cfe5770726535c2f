"""The names of topics, groups and objects. Only this module makes such names."""

import re
from dataclasses import dataclass

from shardline_common.job.spec import JobSpec

JOBS = "dataset.jobs"
CHECKPOINTS = "dataset.checkpoints"
EVENTS = "dataset.events"
DEAD_LETTERS = "dataset.dead-letters"
PRODUCERS = "dataset.producers"
# Prefixes of the names of attempts and jobs; ACLs are granted on these prefixes.
ATTEMPT_TOPICS = "dataset.job."
ATTEMPT_GROUPS = "dataset.workers."
TRANSACTIONAL_IDS = "dataset.producer."

# The prefix of the keys of everything that is staged.
STAGED = "_staged/"

_ATTEMPT_TOPIC = re.compile(r"dataset\.job\.([a-z0-9][a-z0-9-]*)\.([0-9]+)")
_STAGED = re.compile(r"_staged/[^/]+/([a-z0-9][a-z0-9-]*)/")
_OUTCOME = re.compile(r"_state/outcome-([1-9][0-9]*)\.json")
_SUFFIX = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}


def attempt_topic(job_id: str, attempt: int) -> str:
    """The topic of an attempt. Its name has the number, because Kafka clients address topics by name only."""
    return f"{ATTEMPT_TOPICS}{job_id}.{attempt}"


def parse_attempt_topic(name: str) -> tuple[str, int] | None:
    """Job id and attempt number of an attempt's topic; None for any other topic."""
    found = _ATTEMPT_TOPIC.fullmatch(name)
    return (found[1], int(found[2])) if found else None


def attempt_group(job_id: str, attempt: int) -> str:
    """The consumer group of an attempt. A job that starts or ends rebalances no other group."""
    return f"{ATTEMPT_GROUPS}{job_id}.{attempt}"


def checkpoint_key(job_id: str, number: int | None = None) -> str:
    """The key of a job's checkpoint, or of one of its slices. A job id has no slash."""
    return job_id if number is None else f"{job_id}/{number}"


def transactional_id(job_id: str, number: int | None = None) -> str:
    """The transactional id of a job or slice: opening a producer with it fences the earlier producers."""
    return f"{TRANSACTIONAL_IDS}{checkpoint_key(job_id, number)}"


def attempt_of_outcome(key: str) -> int:
    """The attempt of an outcome record by its key in the dataset; 0 for the key of another object."""
    found = _OUTCOME.fullmatch(key)
    return int(found[1]) if found else 0


def job_of_staged(key: str) -> str | None:
    """The id of the job that has staged this object; None for the key of another object."""
    found = _STAGED.match(key)
    return found[1] if found else None


def job_key(job_id: str) -> str:
    """The key of a job's acceptance record."""
    return f"_jobs/{job_id}.json"


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one dataset, relative to the root of the store. `root` ends with a slash, or is empty."""

    root: str
    compression: str = "none"

    @classmethod
    def of(cls, spec: JobSpec) -> "Layout":
        """The layout of a job's dataset."""
        return cls(f"{spec.slug}/{spec.job_id}/", spec.output.compression)

    def data(self, split: str, partition: int, first: int) -> str:
        """The shard of the segment that begins at sequence `first`."""
        return f"{self.root}data/{split}/part-{partition:05d}-{first:012d}{_SUFFIX[self.compression]}"

    def rejected(self, partition: int, first: int) -> str:
        """The rejected documents of that segment, with keep_rejected."""
        return f"{self.root}rejected/part-{partition:05d}-{first:012d}{_SUFFIX[self.compression]}"

    def dead_letters(self, partition: int, first: int) -> str:
        """The dead letters of that segment."""
        return f"{self.root}dead-letters/part-{partition:05d}-{first:012d}{_SUFFIX[self.compression]}"

    def staged(self, partition: int, first: int) -> str:
        """The staged rows of the segment that begins at `first`, sorted, never compressed.

        Outside the dataset: they are of no use once the shards are assembled, and are then removed.
        """
        return f"{self.staged_rows}part-{partition:05d}-{first:012d}.jsonl"

    @property
    def staged_rows(self) -> str:
        """The prefix of the staged rows of all segments."""
        return f"{self.staged_root}rows/"

    @property
    def staged_root(self) -> str:
        """The prefix of everything that an assembled dataset does not keep: staged rows, steps."""
        return f"{STAGED}{self.root}"

    def step(self, name: str) -> str:
        """The result of a step of the decision."""
        return f"{self.steps}{name}.jsonl"

    @property
    def steps(self) -> str:
        """The prefix of the results of the steps of the decision."""
        return f"{self.staged_root}decision/"

    def records(self, partition: int, first: int) -> str:
        """The sidecar of the segment that begins at `first`: a line for each of its records."""
        return f"{self.root}_state/records/part-{partition:05d}-{first:012d}.parquet"

    def bands(self, partition: int, first: int) -> str:
        """The band hashes of the signatures of that segment."""
        return f"{self.root}_state/bands/part-{partition:05d}-{first:012d}.parquet"

    def signatures(self, partition: int, first: int) -> str:
        """The signatures of that segment."""
        return f"{self.root}_state/signatures/part-{partition:05d}-{first:012d}.parquet"

    @property
    def sidecars(self) -> tuple[str, ...]:
        """The prefixes of the sidecars: of records, bands and signatures."""
        return tuple(f"{self.root}_state/{kind}/" for kind in ("records", "bands", "signatures"))

    @property
    def decisions(self) -> str:
        """The prefix of the decision: its head and its drop lists."""
        return f"{self.root}_state/decision/"

    @property
    def decision(self) -> str:
        """The head of the decision: parameters, counts and cuts."""
        return f"{self.root}_state/decision/head.json"

    @property
    def moved(self) -> str:
        """The groups that the decision has moved into the split of another group."""
        return f"{self.root}_state/decision/moved.jsonl"

    def drops(self, split: str, number: int) -> str:
        """The records that the decision drops in the range of a shard."""
        return f"{self.root}_state/decision/drops/{split}/{number:05d}.jsonl"

    @property
    def shard_records(self) -> str:
        """The prefix of the records of assembled shards."""
        return f"{self.root}_state/shards/"

    def shard_record(self, split: str, number: int) -> str:
        """The record of an assembled shard."""
        return f"{self.root}_state/shards/{split}/{number:05d}.json"

    def shard(self, split: str, number: int, count: int) -> str:
        """An assembled shard: number `number` (0, 1, 2 …) of `count` in its split."""
        return f"{self.root}data/{split}/part-{number:05d}-of-{count:05d}{_SUFFIX[self.compression]}"

    @property
    def chains(self) -> str:
        """The prefix of all chains."""
        return f"{self.root}_state/chain/"

    def chain(self, partition: int) -> str:
        """The prefix of a partition's chain."""
        return f"{self.chains}{partition:05d}/"

    def chain_record(self, partition: int, first: int) -> str:
        """The chain record of the segment that begins at `first`."""
        return f"{self.chain(partition)}{first:012d}.json"

    @property
    def outcomes(self) -> str:
        """The prefix of the outcome records."""
        return f"{self.root}_state/outcome-"

    def outcome(self, attempt: int) -> str:
        """The outcome record of an attempt."""
        return f"{self.outcomes}{attempt}.json"

    @property
    def state(self) -> str:
        """The prefix of plan, chains and outcomes: everything that a later process continues from."""
        return f"{self.root}_state/"

    @property
    def plan(self) -> str:
        """The plan: the frozen source and the columns."""
        return f"{self.root}_state/plan.json"

    @property
    def plan_pages(self) -> str:
        """The prefix of the plan pages of a planned source: the documents to read, in order."""
        return f"{self.root}_state/plan/"

    @property
    def rankings(self) -> str:
        """The prefix of the plan pages of searches, and of the digests of local files.

        Outside the dataset: planners that rank at the same time all write theirs, and the plan names one.
        """
        return f"_plans/{self.root}"

    @property
    def exports(self) -> str:
        """The prefix of single-file exports: outside the dataset, where a glob would read rows twice."""
        return f"_exports/{self.root}"

    @property
    def manifest(self) -> str:
        """The manifest."""
        return f"{self.root}manifest.json"

    @property
    def card(self) -> str:
        """The dataset card."""
        return f"{self.root}README.md"

    @property
    def success(self) -> str:
        """`_SUCCESS`, which is written last: the dataset is complete."""
        return f"{self.root}_SUCCESS"
