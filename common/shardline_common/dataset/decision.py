"""The decision of an assembled dataset: which records it keeps, in which shard, and why others are dropped.

A decision is a head, and a drop list for each shard. The head says where each shard begins and ends in the
order of its split. A record that is a row, and in no drop list, is in the shard whose range holds it.

A drop list is in the dataset once for each shard: every dropped record is in the list of the shard of its
split whose range has its place in the order. The first range begins, and the last one ends, where the split
does. A split without rows has no shards, and one list of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from hashlib import sha256
from typing import Annotated, Literal

import orjson
from pydantic import Field, TypeAdapter

from shardline_common.dataset.chain import EMPTY_SHA256, Count, HashSum
from shardline_common.dataset.decision_rules import Rules
from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.hashing import add
from shardline_common.job.stored_json import read_stored

BOILERPLATE_RECORDS = 1_000
"""A cluster of near duplicates with more records is reported: they are hardly copies of one document."""
Position = Annotated[int, Field(ge=0, lt=1 << 63)]
Key = tuple[HashSum, Position]


class Reason(StrEnum):
    """Why a decision drops a row; in the order in which the rules are applied."""

    DUPLICATE_ID = "duplicate_id"
    DUPLICATE = "duplicate"
    DUPLICATE_OF_DATASET = "duplicate_of_dataset"
    NEAR_DUPLICATE = "near_duplicate"
    SAMPLED_OUT = "sampled_out"
    REMAINDER = "remainder"


@dataclass(frozen=True, slots=True)
class Counted:
    """A number of records, and the sum of their id hashes mod 2^64."""

    records: Count = 0
    hash_sum: HashSum = 0

    def plus(self, other: "Counted") -> "Counted":
        """The sum of both."""
        return Counted(self.records + other.records, add(self.hash_sum, other.hash_sum))


def total(parts: Iterable[Counted]) -> Counted:
    """The sum of all."""
    result = Counted()
    for part in parts:
        result = result.plus(part)
    return result


@dataclass(frozen=True, slots=True)
class DropList:
    """A drop list: JSON lines `[position, reason, of]` in the order of the dataset.

    `of` is the position of the record that stays instead, or the digest of the dataset that has the text, or
    null. An empty list has no object.
    """

    count: Count = 0
    sha256: str = EMPTY_SHA256


@dataclass(frozen=True, slots=True)
class ShardCut:
    """One shard: its rows with their uncompressed bytes, and its first and last row as (order, position)."""

    number: Count
    rows: Count
    bytes: Count
    hash_sum: HashSum
    first: Key
    last: Key
    drops: DropList


@dataclass(frozen=True, slots=True)
class SplitCut:
    """One split: the records whose group hash is below `below` (None: any), and that no earlier split has.

    `drops` is the list of a split without shards, `drops(name, 0)` in the dataset; empty for any other split.
    """

    name: str
    below: HashSum | None
    rows: Count
    bytes: Count
    shards: tuple[ShardCut, ...]
    drops: DropList = DropList()


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster of near duplicates: how many records it has, and the id of the first one."""

    records: Count
    id: str


@dataclass(frozen=True, slots=True)
class Clusters:
    """The clusters of near duplicates: how many, how many records they have, and the ten largest."""

    count: Count
    records: Count
    largest: tuple[Cluster, ...]


@dataclass(frozen=True, slots=True)
class DecisionHead:
    """The head of a decision.

    `inputs_sha256` is over the sidecars, `rules` are those that were applied. `kept`, `dropped`, `rejected`
    and `dead` count all records, each once. `moved` is the list of groups that are in the split of another
    group because of near duplicates: JSON lines `[group, other]`, sorted; None where no group is.
    """

    inputs_sha256: str
    rules: Rules
    kept: Counted
    dropped: Mapping[Reason, Counted]
    rejected: Mapping[str, Counted]
    dead: Mapping[str, Counted]
    splits: tuple[SplitCut, ...]
    clusters: Clusters | None = None
    moved: DropList | None = None
    warnings: tuple[str, ...] = ()
    version: Literal[1] = 1

    def encode(self) -> bytes:
        """The head as JSON."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)

    @classmethod
    def decode(cls, body: bytes) -> "DecisionHead":
        """The head of `encode`.

        Raises:
            JobFailed: these bytes are no head (`dataset_damaged`).
        """
        what, hint = "the head of the decision", "restore _state/decision/head.json from a backup"
        head = read_stored(_reader(), body, what, hint)
        if head.encode() != body:
            raise JobFailed(
                FailureCode.DATASET_DAMAGED, f"{what} has fields that it should not have", hint=hint
            )
        return head

    def drop_lists(self) -> dict[tuple[str, int], DropList]:
        """The drop lists that have a line, by split and number."""
        found = {(split.name, cut.number): cut.drops for split in self.splits for cut in split.shards}
        found |= {(split.name, 0): split.drops for split in self.splits if not split.shards}
        return {name: listed for name, listed in found.items() if listed.count}

    def split(self, name: str) -> SplitCut:
        """The split of this name. Raises KeyError when there is none."""
        for split in self.splits:
            if split.name == name:
                return split
        raise KeyError(name)


@cache
def _reader() -> TypeAdapter[DecisionHead]:
    # Built when it is first used, because building takes long enough to slow --help down.
    return TypeAdapter(DecisionHead)


@dataclass(frozen=True, slots=True)
class Drop:
    """A line of a drop list."""

    position: Position
    reason: Reason
    of: int | str | None


def check_list(found: DropList, expected: DropList, key: str) -> None:
    """Check that a list is that of the decision.

    Raises:
        JobFailed: it is not (`dataset_damaged`).
    """
    if found != expected:
        raise JobFailed(
            FailureCode.DATASET_DAMAGED,
            f"{key} has {found.count} lines with another sha256 than the {expected.count} of the decision",
            hint="restore this object from a backup",
        )


def decode_drops(body: bytes, expected: DropList, key: str = "a drop list") -> list[Drop]:
    """The lines of a drop list.

    Raises:
        JobFailed: the bytes are not those of `expected` (`dataset_damaged`).
    """
    check_list(DropList(body.count(b"\n"), sha256(body).hexdigest()), expected, key)
    lines = map(orjson.loads, body.splitlines())
    return [Drop(position, Reason(reason), of) for position, reason, of in lines]


def inputs_sha256(sidecars: Mapping[str, str]) -> str:
    """The sha256 over all sidecars of a dataset; `sidecars` has the sha256 of the values of each, by key."""
    digest = sha256()
    for key, values in sorted(sidecars.items()):
        digest.update(orjson.dumps([key, values]) + b"\n")
    return digest.hexdigest()
