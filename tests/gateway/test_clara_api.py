"""Clara's Python API and script: the same names and lines, and a file that is complete or absent."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardline.clara
from shardline.clara import DatasetDocument, DatasetSearchAPI, DatasetSearchQuery
from shardline_common.errors import JobFailed, ServiceUnavailable, SourceUnavailable
from shardline_common.job.spec import JobSpec
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import PlanPages
from tests.gateway.server import ScriptedStore, sample_documents
from tests.gateway.system import SECONDS

DOCUMENTS = sample_documents(1200)
KEYS = ["text", "metadata", "source", "quality_score", "document_id", "relevance_score"]


def open_source(spec: JobSpec, pages: PlanPages) -> PlannedSource:
    """The scripted source of the gateway's tests."""
    return PlannedSource(spec, ScriptedStore(spec, DOCUMENTS), pages)


@pytest.fixture
def api() -> DatasetSearchAPI:
    return DatasetSearchAPI(open_source)


async def test_stream_search_and_file_agree(api: DatasetSearchAPI, tmp_path: Path) -> None:
    query = DatasetSearchQuery("Satzung", top_k=1000)
    streamed = [document async for document in api.stream_datasets(query, batch_size=50)]
    assert await api.search_datasets(query) == streamed
    path = tmp_path / "new" / "folder" / "training.jsonl"
    assert await api.stream_to_jsonl(query, str(path), batch_size=70) == len(streamed)
    # Clara's trainer reads with splitlines(): a row must be one line for it, too.
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == [document.to_training_format() for document in streamed]
    assert all(list(row) == KEYS for row in rows)
    assert len({document.document_id for document in streamed}) == len(streamed) == 717
    assert all(document.quality_score >= 0.5 for document in streamed)
    assert list(path.parent.iterdir()) == [path]
    other = tmp_path / "again.jsonl"
    assert api.export_to_jsonl(streamed, str(other)) is True
    assert other.read_bytes() == path.read_bytes()


def test_the_defaults_are_claras() -> None:
    query = DatasetSearchQuery("x")
    assert (query.top_k, query.filters, query.min_quality_score) == (100, None, 0.5)
    assert (query.search_types, query.weights) == (["vector", "graph"], None)
    document = DatasetDocument("id", "a b c", {"domain": "baurecht"}, 0.01, 0.6)
    assert document.to_dict() == {
        "document_id": "id",
        "content": "a b c",
        "metadata": {"domain": "baurecht"},
        "score": 0.01,
        "quality_score": 0.6,
    }


def test_statistics(api: DatasetSearchAPI) -> None:
    documents = [
        DatasetDocument("1", "a b c", {"domain": "baurecht", "document_type": "gesetz"}, 0.01, 0.6),
        DatasetDocument("2", "d e", {}, 0.03, 0.8),
    ]
    found = api.get_statistics(documents)
    assert found == {
        "total_documents": 2,
        "avg_quality_score": pytest.approx(0.7),
        "avg_relevance_score": pytest.approx(0.02),
        "total_tokens": 5,
        "domains": {"baurecht": 1, "unknown": 1},
        "document_types": {"gesetz": 1, "unknown": 1},
    }
    assert api.get_statistics([]) == {
        "total_documents": 0,
        "avg_quality_score": 0.0,
        "avg_relevance_score": 0.0,
        "total_tokens": 0,
    }


@pytest.mark.parametrize("text", ["away", "broken"])
async def test_a_failure_raises_and_keeps_the_old_file(
    api: DatasetSearchAPI, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "training.jsonl"
    with pytest.raises(SourceUnavailable):
        await api.stream_to_jsonl(DatasetSearchQuery(text, top_k=1000), path)
    assert list(tmp_path.iterdir()) == []
    path.write_text("before\n")
    with pytest.raises(SourceUnavailable):
        await api.stream_to_jsonl(DatasetSearchQuery(text, top_k=1000), path)
    assert path.read_text() == "before\n"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(SourceUnavailable):
        await api.search_datasets(DatasetSearchQuery(text, top_k=1000))


async def test_a_cancelled_stream_leaves_no_file(api: DatasetSearchAPI, tmp_path: Path) -> None:
    path = tmp_path / "training.jsonl"
    task = asyncio.create_task(api.stream_to_jsonl(DatasetSearchQuery("endless", top_k=10**9), path))
    async with asyncio.timeout(SECONDS):
        while not list(tmp_path.iterdir()):
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []


async def test_an_unknown_filter_is_refused(api: DatasetSearchAPI) -> None:
    with pytest.raises(JobFailed, match="document_type"):
        await api.search_datasets(DatasetSearchQuery("x", filters={"colour": "red"}))


def test_export_returns_false_when_the_file_cannot_be_written(api: DatasetSearchAPI, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert api.export_to_jsonl([DatasetDocument("1", "x")], str(tmp_path / "file" / "below")) is False
    assert api.export_to_jsonl([DatasetDocument("1", "x", {"a": object()})], str(tmp_path / "x")) is False
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.floats(0, 1))
def test_any_document_is_one_line(text: str, score: float) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"clara-{os.getpid()}.jsonl"  # noqa: S108 - of this test
    try:
        api = DatasetSearchAPI(open_source)
        documents = [DatasetDocument("1", text, {"title": text}, score, score)] * 2
        assert api.export_to_jsonl(documents, path)
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == [one.to_training_format() for one in documents]
    finally:
        path.unlink(missing_ok=True)


def available() -> bool:
    """Read the flag anew: it is computed at each access."""
    return shardline.clara.UDS3_AVAILABLE


def test_uds3_is_available_only_when_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("POSTGRES_HOST", "UDS3_POSTGRES_HOST", "UDS3_ENABLED"):
        monkeypatch.delenv(name, raising=False)
    assert not available()
    assert DatasetSearchAPI().search_api is None
    with pytest.raises(ServiceUnavailable, match="not configured"):
        asyncio.run(DatasetSearchAPI().search_datasets(DatasetSearchQuery("x")))
    monkeypatch.setenv("POSTGRES_HOST", "127.0.0.1")
    assert available()
    assert DatasetSearchAPI().search_api is not None
    monkeypatch.setenv("UDS3_ENABLED", "false")
    assert not available()


def test_the_export_imports_no_posix_module(tmp_path: Path) -> None:
    posix = ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty", "posix_ipc")
    code = f"""
import sys
for name in {posix!r}:
    sys.modules[name] = None
import shardline.clara, shardline.cli.export, shardline.cli.app
sys.argv = ["shardline", "export", "--query", "x", "--output", "x.jsonl"]
shardline.cli.app.main()
"""
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert "UDS3 is not configured" in found.stderr
    assert found.returncode == 1


def script(folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `shardline export` as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "shardline", "export", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)} | env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "1"}, "error:"),
        ({}, "UDS3 is not configured"),
        ({"STREAMING_ENABLED": "false"}, "streaming is off"),
        ({"UDS3_ENABLED": "false"}, "UDS3 is not configured"),
    ],
)
def test_the_script_fails_with_1_and_leaves_no_file(
    tmp_path: Path, env: dict[str, str], message: str
) -> None:
    found = script(tmp_path, "--query", "Dach", "--output", "out/training.jsonl", **env)
    assert found.returncode == 1, found.stderr
    assert message in found.stderr
    assert "Traceback" not in found.stderr
    assert not list(tmp_path.rglob("*training*"))


def test_the_scripts_options_are_claras(tmp_path: Path) -> None:
    shown = script(tmp_path, "--help").stdout
    for option in ("--query", "--output", "--top-k", "--domain", "--min-quality", "--batch-size"):
        assert option in shown
    assert "1000" in shown
    assert script(tmp_path, "--output", "x.jsonl").returncode == 2
