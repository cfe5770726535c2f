"""Records that cannot be what a process of Shardline stored are refused before they are used."""

import json
from typing import Any

import orjson
import pytest

from shardline_common.errors import FailureCode, JobFailed
from shardline_common.job.outcome import Outcome
from shardline_common.job.plan import Plan

TOO_LARGE = [-(1 << 63) - 1, 1 << 64, 1 << 70]
OUTCOME = json.loads(Outcome(1, "completed", "then", "before", "test").encode())
PLAN = json.loads(Plan([], {}).encode())


@pytest.mark.parametrize("number", TOO_LARGE)
@pytest.mark.parametrize("field", ["attempt", "source_count", "produced"])
def test_an_integer_that_json_writers_refuse_is_damage(field: str, number: int) -> None:
    value = [[number, 0]] if field == "produced" else number
    with pytest.raises(JobFailed, match="outcome record cannot be read") as caught:
        Outcome.decode(json.dumps(OUTCOME | {field: value}).encode(), "a key")
    assert caught.value.code is FailureCode.DATASET_DAMAGED


@pytest.mark.parametrize("number", TOO_LARGE)
@pytest.mark.parametrize("field", ["rules", "without_column"])
def test_such_an_integer_in_a_plan_is_damage(field: str, number: int) -> None:
    with pytest.raises(JobFailed, match="plan cannot be read"):
        Plan.decode(json.dumps(PLAN | {field: number}).encode())


@pytest.mark.parametrize("number", [*TOO_LARGE, 1e300])
def test_what_is_read_can_be_written_again(number: float) -> None:
    findings: dict[str, Any] = {"completeness": {"count": number}}
    read = Outcome.decode(json.dumps(OUTCOME | {"findings": findings}).encode(), "a key")
    assert orjson.loads(read.encode())["findings"] == {"completeness": {"count": float(number)}}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"attempt": NaN}', b"\xff"])
def test_bytes_that_are_no_json_are_damage(body: bytes) -> None:
    with pytest.raises(JobFailed, match="outcome record cannot be read"):
        Outcome.decode(body, "a key")
