"""`doctor` over the stores that a job reads: its checks, and the indexes that it creates."""

import json
from pathlib import Path
from typing import Any

import pytest

from shardline.services.doctor import Check, create_themis_indexes, run_checks
from shardline_common.errors import JobFailed, UsageError
from shardline_common.settings.load import Settings, load_settings
from tests.make import job
from tests.source_items import item_ids
from tests.themis_reading import fill_documents, read_items
from tests.themis_server import READER, themis_server


async def checked(**fields: Any) -> dict[str, Check]:
    settings = Settings(kafka_bootstrap_servers="127.0.0.1:9", kafka_request_timeout_ms=1000, **fields)
    return {check.name: check for check in await run_checks(settings)}


async def test_a_part_that_is_not_configured_is_not_checked(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    found = await checked(files_root=tmp_path)
    assert (found["themisdb"].ok, found["themisdb"].found) == (None, "THEMIS_URL is not set")
    assert found["files"].ok
    assert "1 files and folders" in found["files"].found
    gone = await checked(files_root=tmp_path / "gone")
    assert gone["files"].ok is False
    assert "FILES_ROOT" in gone["files"].found


async def test_themisdb_is_checked_with_its_token() -> None:
    async with themis_server() as server:
        found = (await checked(themis_url=server.url, themis_token=READER))["themisdb"]
        assert (found.ok, "0.1.0" in found.found) == (True, True)
        wrong = (await checked(themis_url=server.url, themis_token=READER + "?"))["themisdb"]
        assert wrong.ok is False
        assert "THEMIS_TOKEN" in wrong.found
        assert server.tables.indexes == {}
    away = (await checked(themis_url="http://127.0.0.1:9", themis_token=READER))["themisdb"]
    assert away.ok is False
    assert "THEMIS_URL" in away.found


async def test_created_indexes_suffice_for_the_job() -> None:
    async with themis_server() as server:
        fill_documents(server)
        server.tables.indexes.clear()
        settings = Settings(themis_url=server.url, themis_token=READER, themis_rate=0)
        fields = {"theme": "a", "query": {"filters": {"content": "text 4", "doc_id": "d-00004", "year": 3}}}
        with pytest.raises(JobFailed, match="no range index"):
            await read_items(server, **fields)
        spec = job(source={"type": "themis", "theme": "a"}, query=fields["query"])
        assert await create_themis_indexes(settings, spec) == [
            "range index on documents.doc_id: 50 entries",
            "equality index on documents.category: 50 entries",
        ]
        found = await read_items(server, theme="a", query={"filters": {"content": "text 4"}})
        assert item_ids(found) == ["d-00004"]
        with pytest.raises(UsageError, match="not ThemisDB"):
            await create_themis_indexes(settings, job())


def test_old_names_of_the_token_work_with_a_warning(tmp_path: Path) -> None:
    def loaded(**values: str) -> tuple[str, list[str]]:
        environ = {f"THEMIS_{name.upper()}": value for name, value in values.items()}
        found = load_settings(environ=environ, folder=tmp_path)
        token = found.settings.themis_token
        assert "first" not in json.dumps(found.display_rows())
        return token.get_secret_value() if token else "", found.warnings

    one, other = "first", "x"
    assert loaded(token=one, token_admin=other) == (one, [])
    warning = ["THEMIS_TOKEN_READONLY is an old name; use THEMIS_TOKEN"]
    assert loaded(token_readonly=one, token_admin=other) == (one, warning)
    assert loaded(token_admin=one)[0] == one
