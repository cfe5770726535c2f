"""The job message: what is accepted, what is said of the rest, and what the digest covers."""

import contextlib
import json
from hashlib import sha256
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardline_common.errors import JobInvalid, UsageError
from shardline_common.job.names import Layout
from shardline_common.job.spec import JobSpec, Request, parse_job, parse_message, slugify
from shardline_common.job.state import JobState, PartitionState, State
from shardline_common.storage.object_keys import checked_key
from tests.make import job

MINIMAL = {"job_id": "a", "name": "A", "source": {"type": "files", "paths": ["x.jsonl"]}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"job_id": "Upper"}, "job_id: expected a text of a-z, 0-9 and dashes"),
        ({"job_id": "../x"}, "job_id: expected a text of a-z, 0-9 and dashes"),
        ({"name": " "}, "name: a name needs a visible character"),
        ({"colour": 1}, "colour: unknown field; there are version, job_id, "),
        ({"version": 2}, "version: expected 1, got 2"),
        ({"source": {"type": "files", "paths": []}}, "source.paths: expected a list of 1 to 10,000, each"),
        ({"query": {"text": "law"}}, "the source 'files' cannot search"),
        ({"source": {"type": "sql"}}, 'source.type: expected one of files, uds3, themis, got the text "sql"'),
        ({"source": {"type": "uds3", "hops": 4}}, "source.hops: expected a whole number from 0 to 3, got 4"),
        ({"source": {"type": "uds3"}, "query": {"text": " "}}, "a search needs a word"),
        (
            {"source": {"type": "uds3"}, "query": {"text": "x", "weights": {"vector": 0, "colour": 1}}},
            "query.weights.colour",
        ),
        (
            {
                "source": {"type": "uds3"},
                "query": {"text": "x", "search_types": ["graph"], "weights": {"vector": 1}},
            },
            "none of the search types asked for has a weight above 0",
        ),
        ({"source": {"type": "themis"}, "query": {"text": "law"}}, "the source 'themis' cannot search"),
        ({"query": {"filters": {"a": {}}}}, "a range needs gte or lte"),
        ({"query": {"top_k": 10**30}}, "query.top_k: "),
        (
            {"query": {"top_k": 0}},
            "query.top_k: expected a whole number from 1 to 9007199254740992 or null, got 0",
        ),
        ({"quality": {"min_score": 1.1}}, "quality.min_score: expected a number from 0 to 1, got 1.1"),
        ({"format": {"metadata": ["extra"]}}, "'extra' is reserved for the fields"),
        ({"format": {"metadata": ["a", "a"]}}, "a column is named twice"),
        ({"output": {"compression": "lzma"}}, "output.compression"),
        ({"partitions": 0}, "partitions: expected a whole number from 1 to 1024, got 0"),
    ],
)
def test_sentences_name_field_and_fault(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(JobInvalid) as caught:
        parse_job(json.dumps(MINIMAL | change))
    assert sentence in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"5"])
def test_what_is_no_object_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(JobInvalid, match="not UTF-8" if body == b"\xff" else "JSON"):
        parse_job(body)


@given(
    st.binary()
    | st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=3)
    .map(json.dumps)
    .map(str.encode)
)
def test_any_bytes_are_a_message_or_a_sentence(body: bytes) -> None:
    with contextlib.suppress(JobInvalid):
        parse_message(body)


def test_the_contracts_example_is_accepted_but_for_its_source() -> None:
    spec = job(
        query={"top_k": 5000, "filters": {"domain": "x", "created_at": {"gte": "2020-01-01"}}},
        format={"type": "text", "metadata": None},
        output={"compression": "none", "shard_bytes": 67108864, "validation_fraction": 0.0, "group_by": None},
        labels={"team": "a"},
    )
    assert parse_job(spec.body()) == spec
    assert isinstance(parse_message(Request(job_id="a", action="cancel").body()), Request)


def test_the_digest_covers_what_decides_the_rows() -> None:
    spec = job()
    assert job(job_id="other", submitted_by="me", purpose="p", labels={"a": "b"}).digest == spec.digest
    assert job(quality={"min_score": 0.4}).digest != spec.digest
    assert job(partitions=3).digest != spec.digest


def test_a_job_that_is_older_than_a_field_keeps_its_digest() -> None:
    body = job().model_dump(mode="json", exclude={"job_id", "submitted_by", "purpose", "labels"})
    del body["quality"]["relevance"]
    old = sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
    assert job().digest == old
    assert job(quality={"relevance": "normalized"}).digest != old


def test_relational_is_the_keyword_search() -> None:
    asked = {
        "text": "x",
        "search_types": ["relational", "graph", "keyword"],
        "weights": {"relational": 3, "vector": 1},
    }
    spec = job(source={"type": "uds3"}, query=asked)
    assert spec.query.search_types == ["keyword", "graph"]
    # Normalised over all keys given; what has no weight is skipped.
    assert spec.query.shares == {"keyword": 0.75}
    assert spec.source_label == "uds3_search"
    assert spec.relevance_decimals == 6
    assert job(source={"type": "uds3"}).relevance_decimals == 4


def test_a_missing_id_is_made_of_name_and_digest() -> None:
    body = orjson.dumps({name: value for name, value in MINIMAL.items() if name != "job_id"})
    spec = parse_job(body, default_id=True)
    assert spec.job_id == f"a-{spec.digest[:12]}"
    assert parse_job(body, default_id=True) == spec


@given(st.text(min_size=1))
def test_any_name_is_one_safe_path_segment(name: str) -> None:
    assert "/" not in checked_key(slugify(name))


def test_validation_partitions_lie_behind_those_of_train() -> None:
    spec = job(partitions=10, output={"validation_fraction": 0.25})
    assert (spec.total_partitions, spec.split_of(9), spec.split_of(10)) == (12, "train", "validation")
    assert job(output={"validation_fraction": 0.001}).validation_partitions == 1
    assert (
        Layout.of(spec).data("validation", 10, 5) == "test/test/data/validation/part-00010-000000000005.jsonl"
    )


def test_each_slice_has_partitions_of_its_own() -> None:
    spec = job(partitions=3, slices=2, output={"validation_fraction": 0.5})
    splits = [spec.split_of(number) for number in range(spec.total_partitions)]
    assert splits == (["train"] * 3 + ["validation"] * 2) * 2
    assert job(slices=1) == job()
    assert job(slices=2).digest != job().digest


def test_more_partitions_than_a_topic_may_have_are_refused_with_the_numbers() -> None:
    body = orjson.dumps(MINIMAL | {"slices": 64, "partitions": 65})
    with pytest.raises(JobInvalid, match="64 slices of 65 partitions are 4,160 partitions"):
        parse_job(body)
    assert parse_job(orjson.dumps(MINIMAL | {"slices": 64, "partitions": 64})).total_partitions == 4096


@given(st.integers(0, 1 << 63), st.sampled_from(State), st.lists(st.integers(0, 9), max_size=3))
def test_a_state_survives_its_checkpoint(number: int, state: State, position: list[int]) -> None:
    part = PartitionState(number, number, number, 1, tuple(position) or None)
    found = JobState(job(), state, 3, number, cursor=tuple(position), partitions=[part], message="x")
    assert JobState.decode(found.encode()) == found


def test_keys_are_usage_errors() -> None:
    with pytest.raises(UsageError):
        checked_key("a/../b")


def test_the_spec_is_frozen() -> None:
    assert JobSpec.model_config["frozen"]


def test_a_checkpoint_encodes_the_spec_of_its_job_once(monkeypatch: pytest.MonkeyPatch) -> None:
    dumped: list[JobSpec] = []
    dump = JobSpec.model_dump

    def counted(self: JobSpec, **options: Any) -> dict[str, Any]:
        dumped.append(self)
        return dump(self, **options)

    monkeypatch.setattr(JobSpec, "model_dump", counted)
    state = JobState(job(job_id="one"))
    for attempt in (1, 2, 3):
        state.attempt = attempt
        assert JobState.decode(state.encode()) == state
    assert dumped == [state.spec]
    state.spec = job(job_id="two")
    assert orjson.loads(state.encode())["spec"] == dump(state.spec, mode="json")
