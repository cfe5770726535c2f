"""A client written for Clara's API works unchanged, with and without Clara's User-Agent."""

import json
import uuid
from typing import Any
from urllib.parse import unquote

import pytest
import requests

from tests.gateway.server import sample_documents
from tests.gateway.system import SECONDS, TRY_SECONDS, Server, body, ended, eventually

CLARA = {"User-Agent": "Clara-Frontend/2.0", "Content-Type": "application/json"}


@pytest.fixture(params=[CLARA, {}], ids=["clara", "other"])
def session(request: pytest.FixtureRequest) -> requests.Session:
    found = requests.Session()
    found.headers.update(request.param)
    return found


def listed(response: requests.Response) -> dict[str, Any]:
    """Return the datasets of a list by id, read as each kind of client reads it."""
    response.raise_for_status()
    datasets = response.json()["datasets"]
    if response.request.headers["User-Agent"].startswith("Clara-Frontend/"):
        return {one["dataset_id"]: one for one in datasets.values()}
    return {one["dataset_id"]: one for one in datasets}


def test_create_list_get_export_delete(gateway: Server, session: requests.Session) -> None:
    name, datasets = f"Prüfung {uuid.uuid4().hex[:8]}", f"{gateway.url}/api/datasets"
    made = session.post(datasets, json=body(name=name, description="Probe"), timeout=SECONDS)
    assert made.status_code == 200
    response = made.json()
    assert set(response) == {"success", "dataset_id", "status", "message", "data"}
    assert (response["success"], response["status"]) == (True, "pending")
    dataset_id = response["dataset_id"]
    before = session.get(datasets, timeout=SECONDS)
    assert listed(before)[dataset_id]["name"] == name
    assert before.json()["total_count"] >= 1

    data = ended(gateway.url, dataset_id)
    assert data["status"] == "completed"
    streamed = session.post(f"{datasets}/stream", json=body(name=name), stream=True, timeout=SECONDS)
    rows = [json.loads(line) for line in streamed.iter_lines() if line]
    assert data["document_count"] == len(rows)
    assert data["total_tokens"] == sum(len(row["text"].split()) for row in rows)
    mean = sum(row["quality_score"] for row in rows) / len(rows)
    assert data["quality_score_avg"] == pytest.approx(mean, abs=1e-4)
    assert data["rejected"] == {"below_min_score": 252, "empty": 31}
    assert "jsonl" in data["export_paths"]

    export = session.post(f"{datasets}/{dataset_id}/export", json={"format": "jsonl"}, timeout=SECONDS)
    export.raise_for_status()
    exported = export.json()
    assert exported["success"]
    assert exported["export_path"].endswith(".jsonl")
    # The page fetches the link without a token, and without the session.
    whole = requests.get(gateway.url + exported["download_url"], timeout=SECONDS)
    assert {line["document_id"] for line in map(json.loads, whole.text.splitlines())} == {
        row["document_id"] for row in rows
    }
    gone = session.delete(f"{datasets}/{dataset_id}", timeout=SECONDS)
    assert gone.status_code == 200
    assert gone.json()["success"]


def test_a_stream_sends_rows_as_json_lines(gateway: Server, session: requests.Session) -> None:
    url = f"{gateway.url}/api/datasets/stream"
    name, text = "Größe „Über“", 'Baurecht "Dachanlage" ä€\u2028'
    streamed = session.post(url, json=body(text, name=name), stream=True, timeout=SECONDS)
    assert streamed.status_code == 200
    assert streamed.headers["Content-Type"] == "application/x-ndjson"
    assert streamed.headers["Transfer-Encoding"] == "chunked"
    assert unquote(streamed.headers["X-Dataset-Name"]) == name
    assert unquote(streamed.headers["X-Query-Text"]) == text
    assert "filename*=UTF-8''Gr%C3%B6%C3%9Fe%20" in streamed.headers["Content-Disposition"]
    rows = [json.loads(line) for line in streamed.iter_lines()]
    documents = sample_documents(1000)
    assert 0 < len(rows) < 1000
    assert len({row["document_id"] for row in rows}) == len(rows)
    for row in rows:
        assert list(row) == [
            "text",
            "metadata",
            "source",
            "quality_score",
            "document_id",
            "relevance_score",
        ]
        assert row["text"] == documents[row["document_id"]].text
        assert row["source"] == "uds3_search"
        assert row["quality_score"] >= 0.5


def test_health_and_root(gateway: Server, session: requests.Session) -> None:
    health = session.get(f"{gateway.url}/health", timeout=SECONDS).json()
    assert (health["status"], health["service"]) == ("healthy", "clara_dataset_backend")
    assert (health["port"], health["uds3_available"]) == (gateway.port, True)
    assert isinstance(health["datasets_count"], int)
    assert health["timestamp"]
    root = session.get(f"{gateway.url}/", timeout=SECONDS)
    assert root.headers["Content-Type"] == "application/json"
    assert root.json()["endpoints"]["datasets"] == "/api/datasets"


@pytest.mark.parametrize(
    "changes",
    [
        {"filters": {}},
        {"filters": None},
        {"search_types": ["relational"]},
        {"search_types": ["relational", "keyword"], "weights": {"relational": 1.0}},
        {"weights": None},
        {"top_k": 100_000},
        {"export_formats": ["jsonl", "parquet", "csv"]},
        {"filters": {"pages": {"gte": 3}, "domain": ["baurecht", "umweltrecht"]}},
    ],
)
def test_valid_queries_are_accepted(gateway: Server, changes: dict[str, Any]) -> None:
    response = requests.post(f"{gateway.url}/api/datasets/stream", json=body(**changes), timeout=SECONDS)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "../../etc/passwd"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "ab"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "line\nbreak"}, "name"),
        ({"query_text": ""}, "query_text"),
        ({"top_k": 0}, "top_k"),
        ({"min_quality_score": 1.5}, "min_quality_score"),
        ({"search_types": ["telepathy"]}, "search_types"),
        ({"export_formats": ["xml"]}, "export_formats"),
    ],
)
def test_an_invalid_field_is_named(gateway: Server, changes: dict[str, Any], field: str) -> None:
    for path in ("/api/datasets", "/api/datasets/stream"):
        response = requests.post(gateway.url + path, json=body() | body(**changes), timeout=SECONDS)
        assert response.status_code == 422
        assert response.headers["Content-Type"] == "application/problem+json"
        assert any(field in item["loc"] for item in response.json()["detail"])
    assert not (gateway.folder.parent / "etc").exists()


def test_an_unknown_filter_is_refused_before_the_first_line(gateway: Server) -> None:
    response = requests.post(
        f"{gateway.url}/api/datasets/stream", json=body(filters={"colour": "red"}), timeout=SECONDS
    )
    assert response.status_code == 422
    assert "document_type" in response.json()["detail"]


def test_the_list_has_pages_and_a_filter(gateway: Server) -> None:
    ids = [
        requests.post(f"{gateway.url}/api/datasets", json=body(top_k=5), timeout=SECONDS).json()["dataset_id"]
        for _ in range(3)
    ]
    for one in ids:
        ended(gateway.url, one)
    url = f"{gateway.url}/api/datasets"
    done = requests.get(url, params={"status": "completed"}, timeout=SECONDS)
    every = [one["dataset_id"] for one in done.json()["datasets"]]
    assert set(ids) <= set(every)
    page = requests.get(
        url, params={"status": "completed", "limit": "2", "offset": "1"}, timeout=SECONDS
    ).json()
    assert [one["dataset_id"] for one in page["datasets"]] == every[1:3]
    assert page["total_count"] == len(every)
    assert requests.get(url, params={"status": "lost"}, timeout=SECONDS).status_code == 422


def test_unknown_and_unfinished_datasets_are_refused(gateway: Server) -> None:
    missing = requests.get(f"{gateway.url}/api/datasets/no-such", timeout=SECONDS)
    assert missing.status_code == 404
    assert missing.json()["detail"] == "there is no dataset 'no-such'"
    assert missing.json()["request_id"] == missing.headers["X-Request-ID"]
    running = requests.post(f"{gateway.url}/api/datasets", json=body("held"), timeout=SECONDS).json()[
        "dataset_id"
    ]
    early = requests.post(
        f"{gateway.url}/api/datasets/{running}/export", json={"format": "csv"}, timeout=SECONDS
    )
    assert early.status_code == 400
    assert "not ready" in early.json()["detail"]
    requests.delete(f"{gateway.url}/api/datasets/{running}", timeout=SECONDS).raise_for_status()
    assert ended(gateway.url, running)["state"] == "cancelled"


def test_the_same_idempotency_key_is_the_same_dataset(gateway: Server) -> None:
    url, key = f"{gateway.url}/api/datasets", {"Idempotency-Key": uuid.uuid4().hex}
    first = requests.post(url, json=body(top_k=3), headers=key, timeout=SECONDS).json()
    again = requests.post(url, json=body(top_k=3), headers=key, timeout=SECONDS).json()
    assert first["dataset_id"] == again["dataset_id"]
    other = requests.post(url, json=body(top_k=4), headers=key, timeout=SECONDS)
    assert other.status_code == 409


def test_purge_removes_the_dataset(gateway: Server) -> None:
    url = f"{gateway.url}/api/datasets"
    dataset_id = requests.post(url, json=body(top_k=50), timeout=SECONDS).json()["dataset_id"]
    ended(gateway.url, dataset_id)
    made = requests.post(f"{url}/{dataset_id}/export", json={"format": "csv"}, timeout=SECONDS)
    made.raise_for_status()
    requests.delete(f"{url}/{dataset_id}", params={"purge": "true"}, timeout=SECONDS).raise_for_status()
    eventually(lambda: requests.get(f"{url}/{dataset_id}", timeout=TRY_SECONDS).status_code == 404)
    assert not [path for path in (gateway.folder / "store").rglob("*") if dataset_id in str(path.parent)]
