"""The rules by which a decision is made: the job's fields, with every default filled in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Literal

from shardline_common.job.hashing import MODULUS
from shardline_common.job.spec import JobSpec


@dataclass(frozen=True, slots=True)
class NearRules:
    """How near duplicates are found.

    `remove`: of a cluster only the first record stays. Otherwise clusters are kept in one split.
    """

    bands: int
    rows: int
    seed: int
    verify: float | None
    remove: bool

    @property
    def needed(self) -> int | None:
        """How many values of two signatures must be equal; None: an equal band is enough."""
        # As the decimal number that the job names: 0.8 as a float is more than 0.8.
        return None if self.verify is None else math.ceil(Fraction(str(self.verify)) * self.bands * self.rows)


@dataclass(frozen=True, slots=True)
class SampleRules:
    """Which rows a sample keeps: those with the smallest sample keys. One of `rows` and `fraction` is set."""

    rows: int | None
    fraction: float | None
    seed: int

    @property
    def below(self) -> int | None:
        """The sample key below which rows stay; None: all, or `rows` decides."""
        if self.fraction is None:
            return None
        below = int(self.fraction * MODULUS)
        return below if below < MODULUS else None


@dataclass(frozen=True, slots=True)
class ShardRules:
    """How a split is cut: into `count` shards, else into a multiple of `multiple`, of `limit` bytes each."""

    count: int | None
    multiple: int
    limit: int
    equal: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one decision.

    `against` are the digests of the datasets whose texts are dropped. `splits` are names and shares in the
    order in which they divide the range of the group hash. `order_seed` None is the order of the source.
    """

    duplicate_ids: Literal["keep", "first", "fail"]
    exact: bool
    ignore_case: bool
    against: tuple[str, ...]
    near: NearRules | None
    sample: SampleRules | None
    splits: tuple[tuple[str, float], ...]
    exact_splits: bool
    order_seed: int | None
    shards: ShardRules

    @classmethod
    def of(cls, spec: JobSpec, against: Sequence[str]) -> "Rules":
        """The rules of an assembled job. `against` are the digests of the datasets it names, in order."""
        dedup, sample, output = spec.dedup, spec.sample, spec.output
        near, shards = spec.near, output.shards
        removes = dedup is not None and bool(dedup.near)
        limit = shards.bytes if shards is not None and shards.bytes is not None else output.shard_bytes
        return cls(
            duplicate_ids=spec.quality.duplicate_ids,
            exact=dedup is not None and dedup.exact,
            ignore_case=dedup is not None and dedup.ignore_case,
            against=tuple(against),
            near=None if near is None else NearRules(near.bands, near.rows, near.seed, near.verify, removes),
            sample=None if sample is None else SampleRules(sample.rows, sample.fraction, sample.seed),
            splits=spec.splits,
            exact_splits=output.splits is not None and output.splits.exact,
            order_seed=spec.order_seed,
            shards=ShardRules(
                count=None if shards is None else shards.count,
                multiple=1 if shards is None else shards.multiple_of or 1,
                limit=limit,
                equal=shards is not None and shards.equal,
            ),
        )

    @property
    def compares_contents(self) -> bool:
        """Whether the sidecars need content hashes."""
        return self.exact or bool(self.against)

    @property
    def steps(self) -> tuple[str, ...]:
        """The names of the steps of the decision that leave a result in the store, in their order."""
        sample, near = self.sample, self.near
        wanted = {
            "ids": self.duplicate_ids != "keep",
            "exact": self.exact,
            "against": bool(self.against),
            "pairs": near is not None,
            "components": near is not None,
            "sample": sample is not None and sample.rows is not None,
            "groups": near is not None and not near.remove,
            "splits": self.exact_splits,
            "cuts": True,
        }
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    def bounds(self) -> tuple[int | None, ...]:
        """For each split the group hash below which a record is in it, unless an earlier split has it.

        None: every group hash is below. The last split is always that.
        """
        return split_bounds(self.splits)

    def row_targets(self, rows: int) -> tuple[int, ...]:
        """How many of `rows` rows each split but the last one has together with those before it."""
        # As the decimal numbers that the job names: their sums as floats may be off by one row.
        shares = accumulate(Fraction(str(share)) for _, share in self.splits[:-1])
        return tuple(min(math.floor(share * rows + Fraction(1, 2)), rows) for share in shares)


def split_bounds(splits: Sequence[tuple[str, float]]) -> tuple[int | None, ...]:
    """`Rules.bounds` of the names and shares of splits."""
    bounds: list[int | None] = []
    for place in range(1, len(splits)):
        below = int(math.fsum(share for _, share in splits[:place]) * MODULUS)
        bounds.append(below if below < MODULUS else None)
    return (*bounds, None)
