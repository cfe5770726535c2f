"""The parts of a job message. docs/job.md is made from each field's description and example."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from shardline_common.curation.presets import PresetName
from shardline_common.job.spec_assembly import SeededOrder, Shards, Splits
from shardline_common.job.spec_filters import FilterUse
from shardline_common.job.spec_model import Model

MAX_COUNT = 1 << 53
ColumnType = Literal["string", "int", "float", "bool"]
SCALAR = str | int | float | bool | None


class Range(Model):
    """An inclusive range of a filter. At least one of its bounds is set."""

    gte: Annotated[
        SCALAR, Field(description="The lowest value that passes; null is no bound.", examples=["2020-01-01"])
    ] = None
    lte: Annotated[
        SCALAR,
        Field(
            description="The highest value that passes; null is no bound. A day includes all its hours.",
            examples=["2024-12-31"],
        ),
    ] = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.gte is None and self.lte is None:
            raise ValueError("a range needs gte or lte")
        return self


SearchType = Literal["vector", "graph", "keyword"]
_SEARCHES: list[SearchType] = ["vector", "graph", "keyword"]
_WEIGHTS: dict[SearchType, float] = {"vector": 0.4, "graph": 0.3, "keyword": 0.3}
_ALIASES = {"relational": "keyword"}


class Query(Model):
    """Which documents to read from the source."""

    text: Annotated[
        Annotated[str, Field(max_length=10_000)] | None,
        Field(
            description="The text to search for; only UDS3 searches. Null reads every document that passes "
            "the filters, in a stable order.",
            examples=["Baurecht Dachanlage"],
        ),
    ] = None
    top_k: Annotated[
        Annotated[int, Field(ge=1, le=MAX_COUNT)] | None,
        Field(
            description="How many documents to read at most, counted before the quality filter. Null reads "
            "all.",
            examples=[5000],
        ),
    ] = None
    filters: Annotated[
        dict[str, SCALAR | list[SCALAR] | Range],
        Field(
            description="A document passes when each named field equals the value, equals one of the listed "
            "values, or lies in the range. A field that the source does not have fails the job at planning.",
            examples=[{"domain": ["baurecht", "verwaltungsrecht"], "created_at": {"gte": "2020-01-01"}}],
        ),
    ] = Field(default_factory=dict)
    search_types: Annotated[
        list[SearchType],
        Field(
            description="The searches to make; their results are fused by rank. `relational` is another "
            "name of `keyword`.",
            examples=[["vector", "keyword"]],
        ),
    ] = Field(default_factory=lambda: list(_SEARCHES))
    weights: Annotated[
        dict[SearchType, Annotated[float, Field(ge=0)]],
        Field(
            description="The weight of each search in the fusion, normalised over all keys given. A search "
            "without a weight above 0 is skipped.",
            examples=[{"vector": 0.7, "keyword": 0.3}],
        ),
    ] = Field(default_factory=lambda: dict(_WEIGHTS))

    @field_validator("search_types", mode="before")
    @classmethod
    def _replace_aliases(cls, value: Any) -> Any:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            return value
        return list(dict.fromkeys(_ALIASES.get(name, name) for name in value))

    @field_validator("weights", mode="before")
    @classmethod
    def _replace_aliases_of_weights(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {_ALIASES.get(name, name): weight for name, weight in value.items()}

    @property
    def shares(self) -> dict[SearchType, float]:
        """The weight of each requested search that has one above 0: its share of the sum of all weights."""
        total = sum(self.weights.values())
        requested = {name: self.weights.get(name, 0.0) for name in self.search_types}
        return {name: weight / total for name, weight in requested.items() if weight > 0}


class Quality(Model):
    """Which documents become rows, and how many may be unusable."""

    min_score: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The lowest quality score that is kept; the score is rounded to 4 decimals first. "
            "With a preset other than `clara` it is 0 unless the job gives it.",
            examples=[0.6],
        ),
    ] = 0.5
    relevance: Annotated[
        Literal["raw", "normalized"],
        Field(
            description="The relevance of a search: `raw` is Clara's fused rank score, at most 1/61 for "
            "one list; `normalized` is 1 for a document that is first in every list.",
            examples=["normalized"],
        ),
    ] = "raw"
    keep_rejected: Annotated[
        bool | Literal["reasons", "full"],
        Field(
            description="Whether `rejected/` lists each rejected document: true, or `reasons`, with its "
            "reason and scores; `full` with its text as well.",
            examples=["full"],
        ),
    ] = False
    max_dead_letters: Annotated[
        Annotated[int, Field(ge=0, le=MAX_COUNT)] | None,
        Field(
            description="How many dead letters the job may have; one more fails it. Null is no limit.",
            examples=[100],
        ),
    ] = None
    max_dead_letter_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The share of documents that may be dead letters, judged at the end of the source, "
            "when there are more than 10. A job of which all documents are dead letters always fails.",
            examples=[0.02],
        ),
    ] = 0.1
    max_vanished: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_COUNT,
            description="How many planned documents may be removed or marked deleted before they are read. A "
            "job with more of them, and with a larger share than `max_vanished_ratio`, fails with "
            "`source_changed` at the end of the source.",
            examples=[100],
        ),
    ] = 10
    max_vanished_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The share of the planned documents that may be removed or marked deleted before "
            "they are read; see `max_vanished`. 1 allows all.",
            examples=[0.01],
        ),
    ] = 0.1
    duplicate_ids: Annotated[
        Literal["keep", "first", "fail"],
        Field(
            description="What happens to documents with the same id: `keep` makes a row of each, `first` of "
            "the first in source order, and rejects the others as `duplicate_id`; `fail` fails the job.",
            examples=["first"],
        ),
    ] = "keep"
    preset: Annotated[
        PresetName,
        Field(
            description="Filters with parameters for a kind of text; docs/filters.md has each as a table. "
            "`clara` has none: its score alone decides.",
            examples=["legal-de"],
        ),
    ] = "clara"
    filters: Annotated[
        list[FilterUse],
        Field(
            max_length=100,
            description="Filters that are added to those of the preset, in the order in which they judge. A "
            "document that one of them drops has the reason `<filter>.<rule>`.",
            examples=[[{"name": "length", "min_words": 20}]],
        ),
    ] = Field(default_factory=list)

    repair: Annotated[
        Literal["ftfy"] | None,
        Field(
            description="Repairs encoding damage, such as `GrÃ¶ÃŸe` for `Größe`, before anything else sees "
            "the text. The column `metadata.text_repaired` says of each row whether it was changed. It needs "
            "the extra `repair`.",
            examples=["ftfy"],
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _filters_replace_the_score(cls, value: Any) -> Any:
        # Clara's score is one of length and metadata. It would drop most documents that a preset keeps.
        if isinstance(value, dict) and value.get("preset", "clara") != "clara" and "min_score" not in value:
            return value | {"min_score": 0.0}
        return value

    @field_validator("keep_rejected", mode="before")
    @classmethod
    def _reasons_is_true(cls, value: Any) -> Any:
        # One body and one digest for one job. Version 0.1 knows true only.
        return True if value == "reasons" else value


class Format(Model):
    """The shape of a row."""

    type: Annotated[
        Literal["text"],
        Field(description="Clara's training line, with the text as one field.", examples=["text"]),
    ] = "text"
    metadata: Annotated[
        list[Annotated[str, Field(min_length=1)]] | dict[str, ColumnType] | None,
        Field(
            description="The columns of `metadata`, as names or as names with types (`string`, `int`, "
            "`float`, `bool`); all other fields go into `metadata.extra`. Null finds the "
            "columns in the first documents.",
            examples=[{"title": "string", "pages": "int"}],
        ),
    ] = None
    max_columns: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="How many columns may be found. With more fields, only those that one of 100 "
            "documents has become columns, the most frequent first; the others go into `metadata.extra`.",
            examples=[64],
        ),
    ] = 256

    @field_validator("metadata")
    @classmethod
    def _no_reserved_column(cls, value: Any) -> Any:
        if value is not None and "extra" in value:
            raise ValueError("'extra' is reserved for the fields that have no column; leave it out")
        if isinstance(value, list) and len(set(value)) != len(value):
            raise ValueError("a column is named twice")
        return value


class Output(Model):
    """How shards are cut and stored."""

    compression: Annotated[
        Literal["none", "gzip", "zstd"],
        Field(
            description="The compression of shards. Hugging Face datasets cannot stream compressed ones from "
            "`s3://`.",
            examples=["zstd"],
        ),
    ] = "none"
    shard_bytes: Annotated[
        int,
        Field(
            ge=1024,
            le=1 << 32,
            description="A shard closes after the row at which its uncompressed rows reach so many bytes.",
            examples=[8_388_608],
        ),
    ] = 67_108_864
    validation_fraction: Annotated[
        float,
        Field(
            ge=0,
            le=0.9,
            description="The share of documents that go into the validation split, chosen by a hash.",
            examples=[0.05],
        ),
    ] = 0.0
    group_by: Annotated[
        str | None,
        Field(
            description="The field whose value decides the split: documents with the same value are in the "
            "same split. Null takes the document id.",
            examples=["case_number"],
        ),
    ] = None
    layout: Annotated[
        Literal["stream", "assembled"] | None,
        Field(
            description="`stream` writes shards while documents arrive, `assembled` when all have arrived: "
            "in a global order, without duplicates, in equal shards. Null is `assembled` where `dedup`, "
            "`sample`, `order`, `shards`, `splits` or `quality.duplicate_ids` asks for it, else `stream`.",
            examples=["assembled"],
        ),
    ] = None
    order: Annotated[
        Literal["source"] | SeededOrder | None,
        Field(
            description="The order of the rows of an assembled dataset: shuffled by a seed, or `source`. "
            "Null is the seed 0.",
            examples=[{"seed": 7}],
        ),
    ] = None
    shards: Annotated[
        Shards | None,
        Field(
            description="How each split of an assembled dataset is cut. Null is `bytes` of `shard_bytes`.",
            examples=[{"multiple_of": 8, "equal": True}],
        ),
    ] = None
    splits: Annotated[
        Splits | None,
        Field(
            description="The splits of an assembled dataset with their shares. Null is `train`, and "
            "`validation` with the share of `validation_fraction`.",
            examples=[{"train": 0.9, "validation": 0.05, "test": 0.05}],
        ),
    ] = None
    keep_staged: Annotated[
        bool,
        Field(
            description="Whether the staged rows of an assembled dataset stay when it is complete.",
            examples=[True],
        ),
    ] = False
