"""What a user reads about a job that does not fit: plain sentences, whatever is wrong and wherever."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import orjson
import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

from shardline.cli.options import read_job
from shardline.gateway.invalid_requests import request_faults
from shardline.gateway.request_models import CreateRequest
from shardline.services.client import JobTable
from shardline_common.errors import JobInvalid, JobUnknown, UsageError
from shardline_common.job.expected import Place, place_of
from shardline_common.job.field_faults import did_you_mean, find_faults
from shardline_common.job.spec import JobSpec, Request, parse_job, parse_message
from shardline_common.job.state import JobState, State
from shardline_common.ports.broker import Record
from shardline_common.settings.load import load_settings
from tests.make import job as make_job

FILES = {"job_id": "a", "name": "A", "source": {"type": "files", "paths": ["x.jsonl"]}}
UDS3 = FILES | {"source": {"type": "uds3"}}
THEMIS = FILES | {"source": {"type": "themis"}}
_PYDANTIC = re.compile(
    r"input|should|\bvalid\b|field required|extra|union|\btag|permitted|literal|dictionary|instance|unable"
    r"|pydantic|\btuple|\bdict\b|\bstr\b|NoneType",
    re.IGNORECASE,
)
WRONG: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 1e300, "", "0.5", "yes", "x" * 20_000, [], [None], [[]], [1, "a"], {}, {"a": {}},
    {"type": "x"}, {"type": None}, {"gt": 1}, {"a": [{}]}, {"vektor": 1}, {"gte": [1], "lte": {}},
)  # fmt: skip


def sentence(body: dict[str, Any]) -> str | None:
    try:
        parse_message(orjson.dumps(body))
    except JobInvalid as error:
        return str(error)
    return None


def places(place: Place, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every field of a model, of the branches of unions too."""
    for name, field in place.fields.items():
        yield (*path, name)
        for branch in field.branches if field.is_union else [field]:
            yield from places(branch, (*path, name))


def changed(body: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    name, *rest = path
    return body | {name: changed(body.get(name) or {}, tuple(rest), value) if rest else value}


@pytest.mark.parametrize("base", [FILES, UDS3, THEMIS], ids=["files", "uds3", "themis"])
def test_no_wrong_value_of_any_field_gets_a_sentence_of_pydantic(base: dict[str, Any]) -> None:
    found = set()
    for path in {*places(place_of(JobSpec)), ("query", "filters", "a"), ("format", "metadata"), ("no",)}:
        for value in WRONG:
            text = sentence(changed(base, path, value))
            if text is not None:
                found.add(text)
                # The path and the value are the user's own words.
                own = re.sub(r"(?:^|; )[\w.]+: ", "", text)
                own = re.sub(r'got the text.*?(?=; |$)|"[^"]*"|`[^`]*`|\'[^\']*\'', "", own)
                assert not _PYDANTIC.search(own.replace("metadata.extra", "")), (path, text)
                assert len(text) < 1500, text
                assert "another value" not in text, (path, text)
    assert len(found) > 150


def test_the_hint_is_a_command_that_every_installation_has() -> None:
    with pytest.raises(JobInvalid) as caught:
        parse_job(b"{}")
    assert caught.value.hint == "`shardline job --schema` describes every field"


def test_the_fields_of_a_request_are_named_alike() -> None:
    body = {"job_id": "a", "action": "stop"}
    assert sentence(body) == 'action: expected one of cancel, retry, delete, got the text "stop"'
    assert place_of(Request).fields


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"qualty": {}}, "qualty: unknown field; did you mean `quality`?"),
        ({"quality": {"minScore": 1}}, "quality.minScore: unknown field; did you mean `min_score`?"),
        ({"min_score": 0.5}, "min_score: unknown field here; did you mean `quality.min_score`?"),
        ({"quality": {"min_score": "0.5"}}, 'expected a number from 0 to 1, got the text "0.5"'),
        ({"quality": {"min_score": True}}, "quality.min_score: expected a number from 0 to 1, got true"),
        ({"quality": []}, "quality: expected an object, got an empty list"),
        (
            {"source": {"type": "file", "paths": ["x"]}},
            'source.type: expected one of files, uds3, themis, got the text "file"; did you mean `files`?',
        ),
        (
            {"source": {"paths": ["x"]}},
            "source.type: the field is missing; expected one of files, uds3, themis",
        ),
        ({"source": "x"}, 'expected an object whose `type` is files, uds3 or themis, got the text "x"'),
        ({"source": {"type": "files"}}, "source.paths: the field is missing; expected a list of 1 to 10,000"),
        (
            {"source": {"type": "uds3", "paths": ["x"]}},
            "source.paths: unknown field of the type uds3, which has type, degrade, hops",
        ),
        (
            {"query": {"search_types": ["vectr"]}},
            'expected one of vector, graph, keyword, got the text "vectr"; did you mean `vector`?',
        ),
        ({"query": {"weights": {"grph": 1}}}, "query.weights.grph: unknown name; did you mean `graph`?"),
        ({"query": {"filters": {"a": {"gt": 1}}}}, "query.filters.a.gt: unknown field; did you mean `gte`?"),
        (
            {"query": {"filters": {"a": [[1]]}}},
            "expected a text, a whole number, a number, true or false or null, got a list of 1",
        ),
        ({"output": {"compression": "gz"}}, "did you mean `gzip`?"),
        ({"format": {"metadata": {"a": "strng"}}}, 'got the text "strng"; did you mean `string`?'),
        (
            {"format": {"metadata": "title"}},
            "a list, each a text that is not empty, or an object whose values are each one of string, int, ",
        ),
    ],
)
def test_a_typo_is_answered_with_the_word_that_was_meant(change: dict[str, Any], expected: str) -> None:
    assert expected in (sentence(FILES | change) or "accepted")


class _Rule(BaseModel):
    name: Literal["words"]
    least: Annotated[int, Field(ge=1)] = 1


class _Other(BaseModel):
    name: Literal["lines"]


class _Kinds(BaseModel):
    """Shapes that a later version of the job may have."""

    model_config = {"extra": "forbid"}

    rules: list[Annotated[_Rule | _Other, Field(discriminator="name")]] = []
    mode: bool | Literal["reasons", "full"] = True
    order: Literal["id", "hash"] | _Rule | None = None
    fields: dict[str, str | list[str]] = {}
    pairs: tuple[int, str] | None = None
    exact: Annotated[float, Field(gt=0, lt=1)] = 0.5


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"rules": [{"name": "wrds"}]}, "rules.0.name: expected one of words, lines, got"),
        ({"rules": [{"name": "words", "least": 0}]}, "0.least: expected a whole number of at least 1, got 0"),
        ({"rules": [{}]}, "rules.0.name: the field is missing; expected one of words, lines"),
        ({"mode": "ful"}, 'expected true or false or one of reasons, full, got the text "ful"; did you mean'),
        ({"order": {"name": "words", "least": "x"}}, "order.least: expected a whole number of at least 1"),
        ({"order": 5}, "order: expected one of id, hash, or an object, or null, got 5"),
        ({"fields": {"id": 5}}, "fields.id: expected a text or a list, each a text, got 5"),
        ({"fields": {"id": [5]}}, "fields.id.0: expected a text, got 5"),
        ({"exact": 1}, "exact: expected a number above 0 and below 1, got 1"),
        ({"pairs": ["x", 1]}, "pairs"),
    ],
)
def test_shapes_of_later_fields_get_sentences_too(value: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _Kinds.model_validate(value, strict=True)
    found = "; ".join(map(str, find_faults(caught.value, _Kinds, value)))
    assert expected in found
    assert not re.search("Input|valid", found)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("minScore", "min_score"),
        ("MIN-SCORE", "min_score"),
        ("zst", "zstd"),
        ("gz", "gzip"),
        ("x", None),
        (5, None),
    ],
)
def test_a_name_is_near_whatever_its_case_and_joints(name: object, known: str | None) -> None:
    assert did_you_mean(name, ["min_score", "zstd", "gzip", "max_dead_letters"]) == known


def test_a_number_may_come_from_a_placeholder(tmp_path: Any) -> None:
    path = tmp_path / "job.json"
    path.write_bytes(orjson.dumps(FILES | {"partitions": "${n}"}))
    assert read_job(path, sets=["n=3"]).partitions == 3
    with pytest.raises(JobInvalid, match='expected a whole number from 1 to 1024, got the text "many"'):
        read_job(path, sets=["n=many"])


def test_a_setting_is_refused_in_the_same_words_without_a_secret() -> None:
    with pytest.raises(UsageError) as caught:
        load_settings({"kafka_request_timeout_ms": "soon"})
    assert "expected a whole number" in str(caught.value)
    assert 'got "soon"' in str(caught.value)
    with pytest.raises(UsageError) as caught:
        load_settings({"kafka_topicprefix": "x"})
    assert caught.value.hint == "did you mean 'kafka_topic_prefix'?"


def test_the_gateway_uses_the_same_sentences_without_the_value() -> None:
    body = {"name": "Laws", "search_query": {"query_text": "x", "top_k": "many", "search_types": ["vectr"]}}
    with pytest.raises(ValidationError) as caught:
        CreateRequest.model_validate(body)
    errors = [item | {"loc": ("body", *item["loc"])} for item in caught.value.errors()]
    route = pytest.importorskip("shardline.gateway.dataset_routes").router.routes
    create = next(
        one
        for one in route
        if getattr(one, "body_field", None)
        and "search_query" in str(one.body_field.field_info.annotation.model_fields)
    )
    found = {
        fault.path: fault.without_value
        for fault in request_faults(create, RequestValidationError(errors, body=body))
    }
    assert found["body", "search_query", "top_k"] == "expected a whole number from 1 to 9007199254740992"
    assert found["body", "search_query", "search_types", 0] == (
        "expected one of vector, graph, keyword, relational; did you mean `vector`?"
    )


def test_the_python_api_refuses_in_the_same_words() -> None:
    with pytest.raises(JobInvalid, match="did you mean `name`"):
        parse_job(orjson.dumps({"nme": "x"} | FILES))


def test_an_unknown_job_names_the_one_that_was_meant() -> None:
    table = JobTable()
    state = JobState(make_job(job_id="baurecht-2026"), State.QUEUED)
    table.apply_checkpoints([Record(0, 0, b"baurecht-2026", state.encode())])
    with pytest.raises(JobUnknown, match="no job 'baurecht-2062' is known; did you mean `baurecht-2026`"):
        table.job("baurecht-2062")
