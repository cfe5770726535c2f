"""Bodies of requests that hold what no store can: refused with 422, and never a failure of the gateway."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from pydantic import ValidationError

from shardline.gateway.request_models import CreateRequest, job_from_request
from shardline_common.errors import JobInvalid
from tests.gateway.json_values import FILTERS, TEXTS
from tests.gateway.system import SECONDS, Server, body, running

CREATE, STREAM = "/api/datasets", "/api/datasets/stream"
DEEP = 100_000
BODY = json.dumps(body(top_k=1, filters={"domain": "HERE"}))


def with_filter(value: str) -> bytes:
    """A body whose filter on `domain` has this JSON."""
    return BODY.replace('"HERE"', value).encode()


WRONG = {
    "surrogate": with_filter('"\\ud800"'),
    "second-half": with_filter('["a", "\\udfff"]'),
    "surrogate-in-range": with_filter('{"gte": "\\ud800"}'),
    "surrogate-as-field": BODY.replace('"domain"', '"\\ud800"').encode(),
    "surrogate-in-text": json.dumps(body("\ud800")).encode(),
    "nul": with_filter('"\\u0000"'),
    "nul-in-text": json.dumps(body("a\0b")).encode(),
    "65-bits": with_filter(str(1 << 64)),
    "64-bits-unsigned": with_filter(str(1 << 63)),
    "negative": with_filter(str(-(1 << 63) - 1)),
    "in-a-list": with_filter(f"[1, {10**30}]"),
    "in-a-range": with_filter(f'{{"lte": {10**300}}}'),
    "too-many-digits": with_filter("9" * 5000),
    "top-k": json.dumps(body(top_k=10**30)).encode(),
    "weights": json.dumps(body(weights={"vector": 10**400})).encode(),
    "infinite": with_filter("1e999"),
    "not-a-number": with_filter("NaN"),
    "deep-objects": with_filter('{"a":' * 500 + "1" + "}" * 500),
    "deep-lists": with_filter("[" * DEEP + "]" * DEEP),
    "unclosed": with_filter("[" * DEEP),
    "no-utf-8": with_filter('"\xff"').decode().encode("latin-1"),
    "no-json": b"{",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_body_that_no_store_can_search_is_a_422(gateway: Server, name: str) -> None:
    for path in (STREAM, CREATE):
        answer = requests.post(
            gateway.url + path,
            data=WRONG[name],
            headers={"Content-Type": "application/json"},
            timeout=SECONDS,
        )
        assert answer.status_code == 422, answer.text[:500]
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == 422


UNSEARCHABLE = {
    "unknown-field": (body(filters={"colour": "red"}), 422, "colour"),
    "top-k": (body(top_k=5001), 422, "GATEWAY_MAX_TOP_K"),
    "no-store": (body(search_types=["graph"]), 503, "no store is configured for graph"),
}


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A gateway with a limit of top_k and one search."""
    env = {"GATEWAY_MAX_TOP_K": "5000", "TEST_SEARCHES": "keyword,vector"}
    with running(tmp_path_factory.mktemp("limited"), **env) as server:
        yield server


@pytest.mark.parametrize("name", UNSEARCHABLE)
def test_a_dataset_is_refused_where_a_stream_is(limited: Server, name: str) -> None:
    wanted, status, reason = UNSEARCHABLE[name]
    for path in (STREAM, CREATE):
        answer = requests.post(limited.url + path, json=wanted, timeout=SECONDS)
        assert (answer.status_code, reason in answer.json()["detail"]) == (status, True), answer.text
    assert requests.get(limited.url + CREATE, timeout=SECONDS).json()["total_count"] == 0


def test_a_dataset_is_refused_while_uds3_is_away(tmp_path: Path) -> None:
    with running(tmp_path, TEST_AWAY="1") as server:
        for path in (STREAM, CREATE):
            answer = requests.post(server.url + path, json=body(), timeout=SECONDS)
            assert (answer.status_code, "away" in answer.json()["detail"]) == (503, True), answer.text


@given(FILTERS, TEXTS)
def test_any_filter_is_a_job_or_refused(filters: dict[str, Any], text: str) -> None:
    content = json.dumps(body(text or "a", filters=filters))
    try:
        request = CreateRequest.model_validate(json.loads(content))
    except ValidationError:
        return
    try:
        spec = job_from_request(request, "a-1", "user")
    except JobInvalid:
        return
    # A job is a message of Kafka and an object of the store.
    assert json.loads(spec.body())["query"]["filters"].keys() == filters.keys()
