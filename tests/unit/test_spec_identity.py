"""New fields never change old identities: digests and bodies of version 0.1, and the rule for later ones."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import orjson
import pytest
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from shardline_common.job.spec import JobSpec, Output, Quality, Request, parse_job, parse_message
from shardline_common.job.spec_model import FIELDS_OF_0_1, Model
from shardline_common.job.state import JobState
from shardline_producer.acceptance import Acceptance
from tests.make import job
from tools.job_page import MODELS

# Written by version 0.1. They are never made anew: datasets, checkpoints and job ids of users hang on them.
OLD = orjson.loads((Path(__file__).parent / "specs_of_0_1.json").read_bytes())
JOBS = {entry["name"]: entry for entry in OLD["jobs"]}
LATER: dict[str, dict[str, Any]] = {
    "JobSpec": {
        "dead_letter_originals": False,
        "slices": 3,
        "dedup": {"exact": True},
        "sample": {"fraction": 0.5},
        "pii": {"action": "redact", "kinds": ["email"]},
    },
    "Format": {"max_columns": 3},
    "Quality": {
        "max_dead_letter_ratio": 0.5,
        "max_vanished": 3,
        "max_vanished_ratio": 0.5,
        "duplicate_ids": "first",
        "preset": "web-de",
        "repair": "ftfy",
        "filters": [{"name": "length", "min_words": 3}],
    },
    "FilterUse": {"name": "length"},
    "Pii": {"action": "redact", "kinds": ["email"]},
    "Output": {
        "layout": "assembled",
        "order": {"seed": 0},
        "shards": {"count": 3},
        "splits": {"train": 0.5, "test": 0.5},
        "keep_staged": True,
    },
    "Dedup": {
        "exact": True,
        "ignore_case": True,
        "against": ["s3://bucket/laws"],
        "near": {"verify": 0.5},
    },
    "Near": {"bands": 3, "rows": 3, "seed": 3, "verify": 0.5},
    "Sample": {"rows": 3, "fraction": 0.5, "seed": 3},
    "SeededOrder": {"seed": 3},
    "Shards": {"bytes": 4096, "count": 3, "multiple_of": 3, "equal": True},
    "Splits": {"exact": True, "leak": "near"},
    "FilesSource": {
        "allow_empty": True,
        "format": "json",
        "encoding": "cp1252",
        "csv": {"delimiter": ";"},
        "fields": {"id": "uid", "text": "{{title}} {{/body/text}}"},
        "flatten": ["/meta/author"],
    },
    "FieldMapping": {"id": "uid", "text": "body", "score": "stars"},
    "CsvOptions": {
        "delimiter": ";",
        "quote": "",
        "escape": "backslash",
        "header": ["document_id", "content"],
    },
    "Request": {"versions": True},
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_of_version_0_1_keeps_its_digest_body_and_dumps(name: str) -> None:
    entry = JOBS[name]
    spec = parse_job(orjson.dumps(entry["given"]))
    assert spec.digest == entry["digest"]
    assert spec.body().decode() == entry["body"]
    assert list(spec.model_dump(mode="json")) == entry["fields"]
    dump = orjson.loads(entry["body"])
    assert orjson.loads(Acceptance(spec, "").encode())["spec"] == dump
    assert orjson.loads(JobState(spec).encode())["spec"] == dump
    assert parse_job(entry["body"]) == spec


def test_the_jobs_of_version_0_1_give_every_field_something_else_than_its_default() -> None:
    given: set[str] = set()

    def note(model: BaseModel) -> None:
        for field, value in model:
            default = type(model).model_fields[field].get_default(call_default_factory=True)
            if value != default:
                given.add(f"{type(model).__name__}.{field}")
            for part in [value, *(value.values() if isinstance(value, dict) else ())]:
                if isinstance(part, BaseModel):
                    note(part)

    for entry in OLD["jobs"]:
        note(parse_job(orjson.dumps(entry["given"])))
    for entry in OLD["requests"]:
        note(parse_message(orjson.dumps(entry["given"])))
    constant = {"JobSpec.version", "Request.version", "Format.type"}
    assert given == FIELDS_OF_0_1 - constant


@pytest.mark.parametrize("entry", OLD["requests"], ids=lambda entry: entry["given"]["action"])
def test_a_request_of_version_0_1_keeps_its_body(entry: dict[str, Any]) -> None:
    message = parse_message(orjson.dumps(entry["given"]))
    assert isinstance(message, Request)
    assert message.body().decode() == entry["body"]


class Step(Model):
    kind: str
    strength: float = 1
    options: list[bool] = Field(default_factory=list)


class LaterQuality(Quality):
    steps: list[Step] = Field(default_factory=list)
    ratio: float | None = None
    flags: dict[str, int] = Field(default_factory=lambda: {"a": 1, "b": 2})


class LaterOutput(Output):
    device: Annotated[Literal["disk", "tape"], Field(serialization_alias="de-vice")] = "disk"


class LaterSpec(JobSpec):
    quality: LaterQuality = Field(default_factory=LaterQuality)
    output: LaterOutput = Field(default_factory=LaterOutput)
    step: Step | None = None
    marker: bool | int = 1


def later(**changes: Any) -> LaterSpec:
    body = {"job_id": "a", "name": "A", "source": {"type": "files", "paths": ["x.jsonl"]}}
    return LaterSpec.model_validate(body | changes)


@pytest.mark.parametrize(
    "at_default",
    [
        {},
        {"dead_letter_originals": True, "step": None, "marker": 1},
        {"quality": {"steps": [], "ratio": None, "flags": {"b": 2, "a": 1}}, "output": {"device": "disk"}},
    ],
)
def test_a_later_field_at_its_default_is_in_no_digest_body_or_dump(at_default: dict[str, Any]) -> None:
    entry, spec = JOBS["files at their defaults"], later(**at_default)
    assert (spec.digest, spec.body().decode()) == (entry["digest"], entry["body"])
    for dump in (
        spec.model_dump(),
        spec.model_dump(by_alias=True),
        orjson.loads(spec.model_dump_json(by_alias=True)),
    ):
        assert dump == orjson.loads(entry["body"])


@pytest.mark.parametrize(
    "used",
    [
        {"dead_letter_originals": False},
        {"step": {"kind": "exact"}},
        {"marker": True},
        {"marker": 2},
        {"quality": {"ratio": 0.0}},
        {"quality": {"steps": [{"kind": "a"}]}},
        {"quality": {"steps": [{"kind": "a", "strength": 2.0}]}},
        {"quality": {"steps": [{"kind": "a", "options": [False]}]}},
        {"quality": {"steps": [{"kind": "a"}, {"kind": "a"}]}},
        {"quality": {"flags": {}}},
        {"quality": {"flags": {"a": 1}}},
        {"output": {"device": "tape"}},
    ],
)
def test_a_later_field_that_is_used_is_in_digest_and_body(used: dict[str, Any]) -> None:
    specs = [later(), later(**used)]
    assert len({spec.digest for spec in specs}) == len({spec.body() for spec in specs}) == 2
    assert LaterSpec.model_validate_json(specs[1].body()) == specs[1]


def test_the_parts_of_a_list_leave_out_their_defaults_too() -> None:
    spec = later(
        quality={"steps": [{"kind": "a", "strength": 1, "options": []}, {"kind": "b", "strength": 3}]}
    )
    assert orjson.loads(spec.body())["quality"]["steps"] == [{"kind": "a"}, {"kind": "b", "strength": 3.0}]
    written_out = later(quality={"steps": [{"kind": "a"}, {"kind": "b", "strength": 3.0}]})
    assert (spec.digest, spec.body()) == (written_out.digest, written_out.body())


def test_what_names_the_job_only_is_not_in_the_digest() -> None:
    named = later(job_id="b", submitted_by="me", purpose="p", labels={"a": "b"}, marker=2)
    assert named.digest == later(marker=2).digest


def test_each_later_field_of_a_job_has_a_value_in_this_test() -> None:
    found = {
        model.__name__: {
            name for name in model.model_fields if f"{model.__name__}.{name}" not in FIELDS_OF_0_1
        }
        for model in MODELS
    }
    assert {model: names for model, names in found.items() if names} == {
        model: set(values) for model, values in LATER.items()
    }
    for name, value in LATER["JobSpec"].items():
        assert job(**{name: value}).digest != job().digest
        assert orjson.loads(job(**{name: value}).body())[name] == value
    needed: dict[str, dict[str, Any]] = {
        "keep_staged": {"layout": "assembled"},
        "ignore_case": {"exact": True},
    }
    for part in ("quality", "format", "output", "dedup"):
        for name, value in LATER[part.capitalize()].items():
            without = needed.get(name, {})
            used = job(**{part: without | {name: value}})
            assert used.digest != job(**{part: without}).digest
            assert orjson.loads(used.body())[part][name] == value


def test_the_type_of_a_source_has_no_default() -> None:
    # Left out of a dump at its default, it could not tell the sources apart.
    def tagged(field: FieldInfo) -> list[type[BaseModel]]:
        return [part for part in get_args(field.annotation) if isinstance(part, type)]

    for model in MODELS:
        for field in model.model_fields.values():
            if field.discriminator:
                for part in tagged(field):
                    tag = part.model_fields[str(field.discriminator)]
                    assert tag.is_required(), part


def test_the_set_of_fields_names_fields_that_exist() -> None:
    assert {f"{model.__name__}.{name}" for model in MODELS for name in model.model_fields} >= FIELDS_OF_0_1
    assert len(FIELDS_OF_0_1) == 48  # Never more: see the comment of the set.
