"""The fields of a job that ask for an assembled dataset: what is accepted, and which layout they choose."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import JobInvalid
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec, Near, parse_job
from tests.make import job

ASKING: dict[str, dict[str, Any]] = {
    "quality.duplicate_ids": {"quality": {"duplicate_ids": "fail"}},
    "dedup": {"dedup": {"exact": True}},
    "sample": {"sample": {"rows": 3}},
    "output.order": {"output": {"order": {"seed": 0}}},
    "output.shards": {"output": {"shards": {"equal": True}}},
    "output.splits": {"output": {"splits": {"train": 1}}},
}


def fractions(names: int) -> st.SearchStrategy[dict[str, float]]:
    def named(weights: list[int]) -> dict[str, float]:
        return {f"split_{n}": weight / sum(weights) for n, weight in enumerate(weights)}

    return st.lists(st.integers(1, 1000), min_size=1, max_size=names).map(named)


SEEDS = st.integers(0, 1 << 53)
NEAR = st.fixed_dictionaries(
    {},
    optional={
        "bands": st.integers(1, 32),
        "rows": st.integers(1, 32),
        "seed": SEEDS,
        "verify": st.none() | st.floats(0, 1),
    },
)
DEDUP = st.fixed_dictionaries(
    {"exact": st.just(True)},
    optional={
        "ignore_case": st.booleans(),
        "against": st.lists(st.text(min_size=1, max_size=9), max_size=3, unique=True),
        "near": st.booleans() | NEAR,
    },
)
SHARDS = st.sampled_from(["bytes", "count", "multiple_of"]).flatmap(
    lambda name: st.fixed_dictionaries({name: st.integers(1024, 65_536)}, optional={"equal": st.booleans()})
)
SAMPLE = st.one_of(
    st.fixed_dictionaries({"rows": st.integers(1, 1 << 53)}, optional={"seed": SEEDS}),
    st.fixed_dictionaries({"fraction": st.floats(0, 1, exclude_min=True)}, optional={"seed": SEEDS}),
)
OUTPUT = st.fixed_dictionaries(
    {"layout": st.sampled_from([None, "assembled"])},
    optional={
        "order": st.none() | st.just("source") | st.fixed_dictionaries({"seed": SEEDS}),
        "shards": st.none() | SHARDS,
        "splits": st.none()
        | st.tuples(fractions(4), st.fixed_dictionaries({}, optional={"exact": st.booleans()})).map(
            lambda parts: parts[0] | parts[1]
        ),
        "group_by": st.none() | st.text(),
    },
)
JOBS = st.fixed_dictionaries(
    {},
    optional={
        "dedup": st.none() | DEDUP,
        "sample": st.none() | SAMPLE,
        "output": OUTPUT,
        "quality": st.fixed_dictionaries({"duplicate_ids": st.sampled_from(["keep", "first", "fail"])}),
    },
)


def fault(changes: dict[str, Any]) -> str:
    with pytest.raises(JobInvalid) as caught:
        job(**changes)
    return str(caught.value)


@given(JOBS, st.randoms())
def test_a_job_is_the_same_after_a_dump_and_in_any_order_of_its_keys(
    changes: dict[str, Any], random: Any
) -> None:
    spec = job(**changes)
    body = orjson.loads(spec.body())
    shuffled = parse_job(orjson.dumps(_shuffled(body, random)))
    for other in (parse_job(spec.body()), JobSpec.model_validate(spec.model_dump()), shuffled):
        assert (other, other.body(), other.digest) == (spec, spec.body(), spec.digest)
        assert other.splits == spec.splits
    assert sum(share for _, share in spec.splits) == pytest.approx(1)
    used = [spec.dedup, spec.sample, spec.output.order, spec.output.shards, spec.output.splits]
    asks = spec.quality.duplicate_ids != "keep" or any(field is not None for field in used)
    assert spec.assembled == (asks or spec.output.layout == "assembled")


def _shuffled(value: Any, random: Any) -> Any:
    if not isinstance(value, dict):
        return value
    names = list(value)
    random.shuffle(names)
    return {name: _shuffled(value[name], random) for name in names}


@pytest.mark.parametrize("changes", ASKING.values(), ids=ASKING)
def test_each_of_these_fields_chooses_the_assembled_layout(changes: dict[str, Any]) -> None:
    assert job(**changes).assembled
    output = changes.get("output", {})
    assert job(**changes | {"output": output | {"layout": "assembled"}}).assembled
    [name] = [name for name, given in ASKING.items() if given == changes]
    said = fault(changes | {"output": output | {"layout": "stream"}})
    assert said == f"output.layout: a stream cannot have {name}; leave the layout out, or leave out {name}"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"output": {"validation_fraction": 0.1, "group_by": "case"}},
        {"output": {"layout": "stream", "validation_fraction": 0.1}},
        {"quality": {"duplicate_ids": "keep"}, "dedup": None, "sample": None},
        {"dedup": {}},
        {"dedup": {"exact": False, "near": False, "against": []}},
        {"output": {"layout": None, "order": None, "shards": None, "splits": None, "keep_staged": False}},
    ],
)
def test_a_job_without_these_fields_stays_a_stream(changes: dict[str, Any]) -> None:
    assert not job(**changes).assembled


@pytest.mark.parametrize(
    "same",
    [
        ({"dedup": {}}, {}),
        ({"dedup": {"near": {}}}, {"dedup": {"near": True}}),
        ({"dedup": {"near": {"bands": 14, "rows": 8, "verify": None}}}, {"dedup": {"near": True}}),
        (
            {"output": {"splits": {"a": 0.5, "b": 0.5}}},
            {"output": {"splits": {"b": 0.5, "a": 0.5, "leak": None}}},
        ),
        ({"output": {"splits": {"train": 1}}}, {"output": {"splits": {"train": 1.0, "exact": False}}}),
    ],
)
def test_two_words_for_one_thing_are_one_job(same: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, other = (job(**changes) for changes in same)
    assert (one.body(), one.digest) == (other.body(), other.digest)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"quality": {"duplicate_ids": "last"}}, "quality.duplicate_ids: expected one of keep, first, fail"),
        ({"dedup": {"near": {"bands": 0}}}, "dedup.near.bands: expected a whole number from 1 to 256, got 0"),
        ({"dedup": {"near": {"rows": 65}}}, "dedup.near.rows: expected a whole number from 1 to 64, got 65"),
        ({"dedup": {"near": {"verify": 1.5}}}, "dedup.near.verify: expected a number from 0 to 1 or null"),
        (
            {"dedup": {"near": {"bands": 200, "rows": 6}}},
            "dedup.near: 200 bands of 6 rows are 1,200 permutat",
        ),
        ({"dedup": {"near": {"hash": 1}}}, "dedup.near.hash: unknown field"),
        ({"dedup": {"against": ["a", "a"]}}, "dedup.against: a dataset is named twice; name it once"),
        ({"dedup": {"ignore_case": True}}, "ignore_case: no texts are compared"),
        ({"sample": {}}, "sample: a sample needs rows or fraction, one of them; set one"),
        ({"sample": {"rows": 1, "fraction": 0.5}}, "needs rows or fraction, one of them; leave one out"),
        ({"sample": {"fraction": 0}}, "sample.fraction: expected a number above 0 and of at most 1"),
        ({"output": {"order": "random"}}, 'output.order: expected "source", an object or null'),
        ({"output": {"order": {}}}, "output.order.seed: the field is missing"),
        ({"output": {"order": {"seed": -1}}}, "output.order.seed: expected a whole number from 0 to"),
        ({"output": {"shards": {}}}, "expected one of bytes, count and multiple_of, got none; set one"),
        ({"output": {"shards": {"equal": False}}}, "expected one of bytes, count and multiple_of, got none"),
        (
            {"output": {"shards": {"count": 2, "bytes": 4096}}},
            "multiple_of, got bytes and count; leave all but one out",
        ),
        (
            {"output": {"shards": {"count": 0}}},
            "output.shards.count: expected a whole number from 1 to 99999",
        ),
        ({"output": {"splits": {}}}, "output.splits: expected at least one split with its share"),
        ({"output": {"splits": {"exact": True}}}, "output.splits: expected at least one split"),
        (
            {"output": {"splits": {"train": 0.5}}},
            "output.splits: the shares of the splits sum to 0.5, not to 1; raise them by 0.5",
        ),
        ({"output": {"splits": {"train": "1"}}}, "output.splits.train: expected a number above 0 and of at"),
        ({"output": {"splits": {"train": 1, "test": 0}}}, "output.splits.test: expected a number above 0"),
        ({"output": {"splits": {"train": 1, "leak": "far"}}}, 'output.splits.leak: expected "near" or null'),
        ({"output": {"splits": {"train": 1, "exact": 1}}}, "output.splits.exact: expected true or false"),
        (
            {"output": {"splits": {"train": 1}, "validation_fraction": 0.1}},
            "output.validation_fraction: outp",
        ),
        ({"output": {"splits": {"train": 1, "leak": "near"}}, "dedup": {"near": True}}, "output.splits.leak"),
        ({"output": {"keep_staged": True}}, "output.keep_staged: a stream has no staged rows; leave it out"),
    ],
)
def test_sentences_name_the_field_and_what_to_do(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in fault(changes)


@pytest.mark.parametrize("name", ["Train", "vali-dation", "_hidden", "", "all", "../x", "a" * 41, "ä", "a\n"])
def test_a_split_has_a_name_that_readers_take(name: str) -> None:
    said = fault({"output": {"splits": {name: 1.0}}})
    assert "cannot name a split" in said


def test_hugging_face_datasets_takes_the_names_of_splits() -> None:
    from datasets import NamedSplit

    for name in ("train", "validation", "9_of_10", "a" * 40, "x_", "all_of_it"):
        assert job(output={"splits": {name: 1.0}}).splits == ((str(NamedSplit(name)), 1.0),)
    with pytest.raises(ValueError, match="Split name"):
        NamedSplit("vali-dation")


def test_the_splits_of_an_assembled_job_have_no_partitions_of_their_own() -> None:
    spec = job(partitions=10, output={"splits": {"train": 0.9, "test": 0.1}})
    assert (spec.validation_partitions, spec.total_partitions) == (0, 10)
    # The low end of the range of the hash is `validation`, as in a stream.
    spec = job(output={"validation_fraction": 0.25, "layout": "assembled"})
    assert (spec.validation_partitions, spec.splits) == (0, (("validation", 0.25), ("train", 0.75)))
    assert job().splits == (("train", 1.0),)


def test_near_duplicates_are_found_to_remove_them_or_to_keep_them_in_one_split() -> None:
    assert job(dedup={"near": {"bands": 3}}).near == Near(bands=3)
    assert job(dedup={"near": True}).near == Near()
    assert job(output={"splits": {"train": 1.0, "leak": "near"}}).near == Near()
    assert job(dedup={"exact": True}).near is None
    assert job(output={"splits": {"train": 1.0}}).near is None


def test_the_order_is_seeded_unless_the_job_says_source() -> None:
    assert job(output={"layout": "assembled"}).order_seed == 0
    assert job(output={"order": {"seed": 5}}).order_seed == 5
    assert job(output={"order": "source"}).order_seed is None


def test_an_assembled_dataset_has_its_sidecars_and_its_staged_rows_outside() -> None:
    layout = Layout.of(job(output={"compression": "zstd", "layout": "assembled"}))
    assert layout.staged(3, 12_000) == "_staged/test/test/rows/part-00003-000000012000.jsonl"
    assert layout.staged(3, 12_000).startswith(layout.staged_root)
    assert layout.step("pairs") == "_staged/test/test/decision/pairs.jsonl"
    assert layout.records(3, 12_000) == "test/test/_state/records/part-00003-000000012000.parquet"
    assert layout.bands(3, 12_000) == "test/test/_state/bands/part-00003-000000012000.parquet"
    assert layout.signatures(3, 12_000) == "test/test/_state/signatures/part-00003-000000012000.parquet"
    assert layout.decision == "test/test/_state/decision/head.json"
    assert layout.drops("train", 7) == "test/test/_state/decision/drops/train/00007.jsonl"
    assert layout.shard_record("train", 7) == "test/test/_state/shards/train/00007.json"
    assert layout.shard("train", 7, 64) == "test/test/data/train/part-00007-of-00064.jsonl.zst"


def test_an_unknown_name_beside_the_splits_is_no_number() -> None:
    assert "output.splits.extra" in fault({"output": {"splits": {"train": 1.0, "extra": True}}})
    assert json.loads(job(output={"splits": {"train": 1}}).body())["output"]["splits"] == {"train": 1.0}
