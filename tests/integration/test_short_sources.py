"""Whole jobs over a source whose store answers wrongly for good fail, and name the store."""

import gzip
from pathlib import Path

import pytest

from shardline.services.sample import write_sample
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.retry import Backoff
from shardline_common.storage.s3 import S3Client, S3Options, open_s3
from tests.make import job
from tests.support.embedded import run_embedded
from tests.support.lying_store import PAGE_LIES, READ_LIES, LyingStore, unframed

DOCUMENTS = 437
CHANGED = {"longer", "longer_unframed", "other_etag"}
SPEC = job(source={"type": "files", "paths": ["s3://b/in/*.jsonl*"]})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LyingStore:
    """Two objects, one of them compressed, of more bytes than a short answer gives."""
    for name in ("pause", "longest"):
        monkeypatch.setattr(Backoff, name, lambda *_: 0.0)
    write_sample(tmp_path / "all.jsonl", DOCUMENTS)
    lines = (tmp_path / "all.jsonl").read_bytes().splitlines(keepends=True)
    plain, packed = b"".join(lines[::2]), gzip.compress(b"".join(lines[1::2]))
    return LyingStore({"in/a.jsonl": plain, "in/b.jsonl.gz": packed, "out": b""})


def options(url: str) -> S3Options:
    return S3Options(
        "b",
        endpoint_url=url,
        access_key_id="key",
        secret_access_key="secret",  # noqa: S106 - of no store
        addressing_style="path",
        attempts=3,
    )


async def failure(client: S3Client, folder: Path) -> tuple[str | None, str]:
    """Code and message of a job that must fail, and publish nothing."""
    dataset = MemoryStore()
    view = await run_embedded(SPEC, dataset, folder, remote=client, source_seconds=0.0)
    assert view.state.state == "failed", view.to_json()
    assert [info.key async for info in dataset.list(Layout.of(SPEC).success)] == []
    return view.state.code, str(view.state.message)


async def test_no_wrong_answer_of_a_source_becomes_a_dataset(tmp_path: Path, store: LyingStore) -> None:
    async with store.running() as url, open_s3(options(url)) as client:
        view = await run_embedded(SPEC, dataset := MemoryStore(), tmp_path, remote=client)
        assert (view.state.state, view.state.source_count) == ("completed", DOCUMENTS)
        assert (await Verifier(dataset, Layout.of(SPEC).root).run()).ok
        for lie in READ_LIES:
            if lie is unframed:
                continue
            store.lies = [lie] * 10_000
            code, message = await failure(client, tmp_path)
            assert code == ("source_changed" if lie.__name__ in CHANGED else "source_unreachable"), message
            assert "s3://b" in message
            # The first bytes of both are read together.
            assert "in/a.jsonl" in message or "in/b.jsonl.gz" in message
        store.lies = []
        for lie in PAGE_LIES:
            store.list_lies = [lie] * 10_000
            code, message = await failure(client, tmp_path)
            assert code == "source_unreachable", message
            assert f"s3://b at {url}" in message


async def test_the_store_and_not_the_file_is_blamed_for_compressed_bytes_that_it_cuts(
    tmp_path: Path, store: LyingStore
) -> None:
    del store.objects["in/a.jsonl"]
    async with store.running() as url, open_s3(options(url)) as client:
        for lie in READ_LIES:
            if lie is unframed:
                continue
            store.lies = [lie] * 10_000
            code, message = await failure(client, tmp_path)
            assert code == ("source_changed" if lie.__name__ in CHANGED else "source_unreachable"), message
            assert "decompressed" not in message
        # A file that is damaged, and of which all bytes came, is the file's fault.
        store.lies, store.objects["in/b.jsonl.gz"] = [], store.objects["in/b.jsonl.gz"][:-9]
        code, message = await failure(client, tmp_path)
        assert (code, "cannot be decompressed" in message) == ("source_invalid", True)
