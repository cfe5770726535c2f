"""The parts of a job message that ask for an assembled dataset. docs/job.md is made from each field."""

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from shardline_common.job.spec_model import Model

if TYPE_CHECKING:
    from shardline_common.job.spec import JobSpec

MAX_SEED = 1 << 53
MAX_PERMUTATIONS = 1024
SPLIT_NAME = r"[a-z0-9][a-z0-9_]{0,39}"
Fraction = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]

_SPLIT_NAME = re.compile(SPLIT_NAME)
# Hugging Face datasets takes `all` for the sum of the splits.
_RESERVED_NAMES = {"all"}
_SUM_TOLERANCE = 1e-9


class Near(Model):
    """How near duplicates are found: MinHash signatures in bands, as `minhash-v1` describes.

    Two texts are near duplicates when one of their bands is equal. With 14 bands of 8 rows, half of
    the pairs that share 69 % of their word 5-grams are found, and 99 % of those that share 85 %.
    """

    bands: Annotated[
        int,
        Field(
            ge=1, le=256, description="How many bands a signature has. More bands find more.", examples=[20]
        ),
    ] = 14
    rows: Annotated[
        int,
        Field(
            ge=1,
            le=64,
            description="How many values of a signature a band has. More rows find only pairs that are more "
            "alike.",
            examples=[10],
        ),
    ] = 8
    seed: Annotated[
        Seed, Field(description="The seed from which the permutations are made.", examples=[7])
    ] = 0
    verify: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(
            description="The share of equal values that two signatures must have to be near duplicates. Null "
            "takes an equal band as enough. With it, the signatures are stored in the dataset.",
            examples=[0.8],
        ),
    ] = None

    @model_validator(mode="after")
    def _check_permutations(self) -> Self:
        if (made := self.bands * self.rows) > MAX_PERMUTATIONS:
            raise ValueError(
                f"{self.bands} bands of {self.rows} rows are {made:,} permutations, at most "
                f"{MAX_PERMUTATIONS:,} are allowed; lower bands or rows"
            )
        return self


class Dedup(Model):
    """Which documents are dropped because another one has the same text, or nearly the same."""

    exact: Annotated[
        bool,
        Field(
            description="Whether of documents with the same text only the first in source order stays. Texts "
            "are compared in Unicode normal form C, with runs of white space as one space and none at the "
            "ends. The others are rejected as `duplicate`.",
            examples=[True],
        ),
    ] = False
    ignore_case: Annotated[
        bool,
        Field(description="Whether texts that differ only in case are the same.", examples=[True]),
    ] = False
    against: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=2000)]],
        Field(
            max_length=100,
            description="Finished datasets, as folders or `s3://` addresses. A document whose text one of "
            "them has is rejected as `duplicate_of_dataset`.",
            examples=[["s3://datasets/laws/laws-2025"]],
        ),
    ] = Field(default_factory=list)
    near: Annotated[
        bool | Near,
        Field(
            description="Whether of documents with nearly the same text only the first in source order "
            "stays: true, or an object with settings. The others are rejected as `near_duplicate`.",
            examples=[{"verify": 0.8}],
        ),
    ] = False

    @field_validator("near")
    @classmethod
    def _default_settings_are_true(cls, value: bool | Near) -> bool | Near:
        # One body and one digest for one job.
        return True if value == Near() else value

    @field_validator("against")
    @classmethod
    def _has_no_dataset_twice(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("a dataset is named twice; name it once")
        return value

    @model_validator(mode="after")
    def _case_needs_a_comparison(self) -> Self:
        if self.ignore_case and not (self.exact or self.against or self.near):
            raise ValueError("ignore_case: no texts are compared; set exact to true, or leave it out")
        return self


class Sample(Model):
    """A part of the rows, chosen by a seeded hash of the document id. The others are `sampled_out`."""

    rows: Annotated[
        Annotated[int, Field(ge=1, le=1 << 53)] | None,
        Field(description="How many rows stay, where there are more.", examples=[10_000]),
    ] = None
    fraction: Annotated[
        Fraction | None,
        Field(description="The share of rows that stay, as a threshold of the hash.", examples=[0.1]),
    ] = None
    seed: Annotated[Seed, Field(description="The seed of the hash.", examples=[7])] = 0

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        if (self.rows is None) == (self.fraction is None):
            do = "leave one out" if self.rows is not None else "set one"
            raise ValueError(f"a sample needs rows or fraction, one of them; {do}")
        return self


class SeededOrder(Model):
    """An order of the rows by a seeded hash of the document id."""

    seed: Annotated[Seed, Field(description="The seed of the hash.", examples=[7])]


class Shards(Model):
    """Into how many shards each split is cut: one of `bytes`, `count` and `multiple_of` says it.

    The row counts of the shards of a split differ by one at most.
    """

    bytes: Annotated[
        Annotated[int, Field(ge=1024, le=1 << 32)] | None,
        Field(
            description="The fewest shards of which none has more uncompressed bytes, unless one row has.",
            examples=[8_388_608],
        ),
    ] = None
    count: Annotated[
        Annotated[int, Field(ge=1, le=99_999)] | None,
        Field(description="So many shards, or one for each row where there are fewer.", examples=[64]),
    ] = None
    multiple_of: Annotated[
        Annotated[int, Field(ge=1, le=65_536)] | None,
        Field(
            description="The least multiple of this number of which no shard has more than "
            "`output.shard_bytes`.",
            examples=[8],
        ),
    ] = None
    equal: Annotated[
        bool,
        Field(
            description="Whether all shards of a split have the same number of rows. The last rows, fewer "
            "than there are shards, are rejected as `remainder`.",
            examples=[True],
        ),
    ] = False

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        named = [name for name in ("bytes", "count", "multiple_of") if getattr(self, name) is not None]
        if len(named) > 1 or not (named or self.equal):
            found = f"got {' and '.join(named)}; leave all but one out" if named else "got none; set one"
            raise ValueError(f"expected one of bytes, count and multiple_of, {found}")
        return self


class Splits(Model):
    """The splits: each other name is a split and its share of the rows. The shares sum to 1.

    A name has a-z, 0-9 and underscores. A hash of the value of `output.group_by`, else of the
    document id, decides the split. The splits divide the range of the hash in descending order of
    their names, so `validation` has the same documents as with `output.validation_fraction`.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Fraction] = Field(init=False)

    exact: Annotated[
        bool,
        Field(
            description="Whether the shares are kept to within one group: the groups are cut by the rank of "
            "their hash. A document may then change its split when the source changes.",
            examples=[True],
        ),
    ] = False
    leak: Annotated[
        Literal["near"] | None,
        Field(
            description="`near` keeps near duplicates in one split, for jobs that do not remove them.",
            examples=["near"],
        ),
    ] = None

    @property
    def fractions(self) -> tuple[tuple[str, float], ...]:
        """Names and shares in the order in which they divide the range of the hash.

        Not in the order of the message: stored messages have sorted keys.
        """
        return tuple(sorted(self.__pydantic_extra__.items(), reverse=True))

    @model_validator(mode="after")
    def _check_names_and_sum(self) -> Self:
        if not self.fractions:
            raise ValueError('expected at least one split with its share, such as "train": 1.0')
        for name, _ in self.fractions:
            if not _SPLIT_NAME.fullmatch(name) or name in _RESERVED_NAMES:
                raise ValueError(
                    f"'{name[:60]}' cannot name a split; take a-z, 0-9 and underscores, at most 40 "
                    "characters, a letter or digit first, not 'all'"
                )
        total = math.fsum(share for _, share in self.fractions)
        if abs(total - 1) > _SUM_TOLERANCE:
            do = "lower" if total > 1 else "raise"
            raise ValueError(
                f"the shares of the splits sum to {total:.12g}, not to 1; {do} them by {abs(total - 1):.12g}"
            )
        return self


def assembly_fields(spec: "JobSpec") -> list[str]:
    """The fields of a job that ask for an assembled dataset, apart from `output.layout`."""
    output = spec.output
    asked: dict[str, Any] = {
        "quality.duplicate_ids": spec.quality.duplicate_ids != "keep",
        "dedup": spec.dedup is not None,
        "sample": spec.sample is not None,
        "output.order": output.order is not None,
        "output.shards": output.shards is not None,
        "output.splits": output.splits is not None,
    }
    return [name for name, is_asked in asked.items() if is_asked]


def assembly_faults(spec: "JobSpec") -> Iterator[str]:
    """Sentences about fields that contradict each other, each with the name of the field to change."""
    output, asked = spec.output, assembly_fields(spec)
    if output.layout == "stream" and asked:
        names = " and ".join(asked)
        yield f"output.layout: a stream cannot have {names}; leave the layout out, or leave out {names}"
    if output.keep_staged and not spec.assembled:
        yield "output.keep_staged: a stream has no staged rows; leave it out"
    if output.splits is None:
        return
    if output.validation_fraction > 0:
        yield (
            "output.validation_fraction: output.splits says how the rows are split; leave it out, and put "
            "the share of `validation` into output.splits"
        )
    if output.splits.leak == "near" and spec.dedup is not None and spec.dedup.near:
        yield (
            "output.splits.leak: dedup.near removes near duplicates, so none can be in two splits; leave one "
            "of the two out"
        )
