"""Every refusal of the application is problem details."""

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.inprocess import gateway_in_memory
from tests.gateway.system import body

PREFLIGHT = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
REFUSALS: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "no-route": (404, "GET", "/nothing", {}),
    "no-route-below-the-api": (404, "GET", "/api/nothing", {}),
    "no-static-file": (404, "GET", "/static/x", {}),
    "no-dataset": (404, "GET", "/api/datasets/none", {"user": "erika"}),
    "method": (405, "PATCH", "/api/datasets", {}),
    "method-of-no-standard": (405, "BREW", "/api/datasets/stream", {}),
    "no-token": (401, "GET", "/api/datasets", {}),
    "declared-too-large": (413, "POST", "/api/datasets", {"headers": {"content-length": str(1 << 30)}}),
    "too-large": (413, "POST", "/api/datasets", {"body": "x" * (2 << 20)}),
    "invalid": (422, "POST", "/api/datasets", {"user": "erika", "body": {"name": "x"}}),
    "no-json": (422, "POST", "/api/datasets", {"user": "erika", "body": [[]]}),
    "too-many": (422, "POST", "/api/datasets", {"user": "erika", "body": body(top_k=10**30)}),
    "preflight": (400, "OPTIONS", "/api/datasets", {"headers": PREFLIGHT}),
    "foreign-origin": (403, "POST", "/api/datasets", {"headers": {"Origin": "https://evil.example"}}),
    "expired-link": (403, "GET", "/api/datasets/x/files/y?expires=1&signature=z", {}),
    "export-of-nothing": (
        404,
        "POST",
        "/api/datasets/x/export",
        {"user": "erika", "body": {"format": "csv"}},
    ),
}


async def test_a_body_that_does_not_fit_is_refused_in_the_sentences_of_a_job(tmp_path: Path) -> None:
    wrong = {"name": "Laws", "search_query": {"query_text": "x", "top_k": "many", "search_types": ["vectr"]}}
    async with gateway_in_memory(tmp_path) as gateway:
        found = (await gateway.call("POST", "/api/datasets", user="erika", body=wrong)).json()["detail"]
        listed = (await gateway.call("GET", "/api/datasets?status=lost&limit=x", user="erika")).json()[
            "detail"
        ]
        text = (await gateway.call("POST", "/api/datasets", user="erika", body=[["x"]])).json()["detail"]
    assert [(one["loc"][-1], one["msg"]) for one in found] == [
        ("top_k", "expected a whole number from 1 to 9007199254740992"),
        (0, "expected one of vector, graph, keyword, relational; did you mean `vector`?"),
    ]
    assert [(one["loc"], one["msg"]) for one in (*listed, *text)] == [
        (["query", "status"], "expected one of pending, processing, completed, failed"),
        (["query", "limit"], "expected a whole number from 1 to 10000"),
        (["body"], "expected a JSON object, sent as application/json"),
    ]


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_is_problem_details(tmp_path: Path, name: str) -> None:
    status, method, path, options = REFUSALS[name]
    origins = {"gateway_cors_origins": "https://page.example"}
    async with gateway_in_memory(tmp_path, **origins) as gateway:
        answer = await gateway.call(method, path, **options)
        assert answer.status == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        found = answer.json()
        assert (found["status"], found["request_id"]) == (status, answer.headers["x-request-id"])
        assert found["title"]
        assert found["detail"]
