"""docs/job.md: every field has a sentence and an example that is valid, and the whole jobs are valid."""

import json
import re
from typing import Any

import pytest
from pydantic import BaseModel

from shardline_common.job.spec import parse_job
from tests.docs.blocks import DOCS, blocks
from tools.job_page import MODELS

PAGE = DOCS / "job.md"
FIELDS = [(model, name) for model in MODELS for name in model.model_fields]
REQUIRED: dict[str, dict[str, Any]] = {
    "JobSpec": {"job_id": "a", "name": "a", "source": {"type": "uds3"}},
    "FilesSource": {"type": "files", "paths": ["a.jsonl"]},
    "Uds3Source": {"type": "uds3"},
    "ThemisSource": {"type": "themis"},
    "Range": {"gte": 0},
    "Dedup": {"exact": True},
    "Pii": {"action": "count"},
    "Shards": {},
    "Sample.seed": {"rows": 1},
    "Splits": {"train": 1.0},
    "Request": {"job_id": "a", "action": "cancel"},
}


def test_the_whole_jobs_are_valid() -> None:
    found = [parse_job(block.text) for block in blocks(PAGE) if block.language == "json"]
    assert [spec.source.type for spec in found] == ["files", "uds3", "themis", "files"]
    assert [spec.assembled for spec in found] == [False, False, False, True]
    assert found[0].output.validation_fraction > 0
    assert found[1].query.text
    assert found[2].query.filters


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda value: getattr(value, "__name__", value))
def test_every_field_has_a_sentence_and_a_valid_example(model: type[BaseModel], name: str) -> None:
    field = model.model_fields[name]
    assert field.description
    assert re.fullmatch(r"[A-Z`].*\.", field.description)
    assert field.examples
    given = REQUIRED.get(f"{model.__name__}.{name}", REQUIRED.get(model.__name__, {}))
    given = given | {name: field.examples[0]}
    assert name in model.model_validate(given).model_fields_set


def test_every_field_is_on_the_page() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _ in rows] == [name for _, name in FIELDS]
    for name, rest in rows:
        meaning, values, default, example = (cell.strip() for cell in re.split(r"(?<!\\)\|", rest))
        assert all((meaning, values, default)), name
        json.loads(example.strip("`").replace("\\|", "|"))
