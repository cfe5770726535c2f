"""Before a real store, a proxy gives answers that are short, wrong or endless: no dataset is short."""

import gzip
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shardline.services.sample import write_sample
from shardline_common.dataset.verify import Verifier
from shardline_common.job.names import Layout
from shardline_common.memory.store import MemoryStore
from shardline_common.ports.store import ObjectStore
from shardline_common.storage import s3_reads
from shardline_common.storage.s3 import S3Client, S3Options, S3Store, open_s3
from tests.faults.proxies import Fault, S3Proxy
from tests.services import S3
from tests.support.embedded import run_embedded, small_job
from tests.support.lying_store import PAGE_LIES, READ_LIES, Lie

DOCUMENTS = 437
FILES = 10
# Fewer wrong answers in a row than a client has attempts.
GROUP, ATTEMPTS = 9, 11
PAGES = "^/[^/]+/?$"
KINDS = ("/_state/", "/_jobs/", "/data/", "/manifest.json", "/README.md", "/_SUCCESS")
PAGE_ACTIONS: list[str | Lie] = [*PAGE_LIES, "empty page"]


@asynccontextmanager
async def client_of(s3: S3, endpoint: str) -> AsyncIterator[S3Client]:
    options = S3Options(
        s3.bucket,
        endpoint_url=endpoint,
        access_key_id=s3.access_key,
        secret_access_key=s3.secret_key,
        addressing_style="path",
        attempts=ATTEMPTS,
    )
    async with open_s3(options) as client:
        yield client


async def digest(store: ObjectStore, client: S3Client, prefix: str, folder: Path) -> str:
    spec = small_job(
        source={"type": "files", "paths": [f"s3://{client._options.bucket}/{prefix}/in/*.jsonl*"]}
    )
    view = await run_embedded(spec, store, folder, remote=client)
    assert view.state.state == "completed", view.to_json()
    assert view.state.source_count == DOCUMENTS
    report = await Verifier(store, Layout.of(spec).root).run()
    assert report.ok, report.problems
    return report.digest


async def test_a_proxy_that_cuts_and_changes_answers_shortens_no_dataset(
    tmp_path: Path, seaweed: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pause", "longest"):
        monkeypatch.setattr(s3_reads._BACKOFF.__class__, name, lambda *_: 0.0)
    monkeypatch.setattr(s3_reads, "_KEYS_PER_PAGE", 3)
    prefix, proxy = secrets.token_hex(4), S3Proxy(seaweed.endpoint)
    write_sample(tmp_path / "all.jsonl", DOCUMENTS)
    lines = (tmp_path / "all.jsonl").read_bytes().splitlines(keepends=True)
    with proxy.running() as endpoint:
        async with client_of(seaweed, endpoint) as client:
            files = S3Store(client, seaweed.bucket, prefix)
            for number in range(FILES):
                body = b"".join(lines[number::FILES])
                if number % 2:
                    await files.create(f"in/{number}.jsonl.gz", gzip.compress(body))
                else:
                    await files.create(f"in/{number}.jsonl", body)
            expected = await digest(MemoryStore(), client, prefix, tmp_path)
            met = 0
            for number, start in enumerate(range(0, len(READ_LIES), GROUP)):
                # 1. Source objects and lists, with the dataset in memory.
                # 2. The dataset on the same store: it has objects of every kind.
                lies = READ_LIES[start : start + GROUP]
                for parts in (["/in/"], KINDS):
                    proxy.faults = [Fault("GET", part, lie, 1) for part in parts for lie in lies]
                    proxy.faults += [Fault("GET", PAGES, action, 1) for action in PAGE_ACTIONS[number::2]]
                    if parts is KINDS:
                        store: ObjectStore = S3Store(client, seaweed.bucket, f"{prefix}/out-{start}")
                    else:
                        store = MemoryStore()
                    assert await digest(store, client, prefix, tmp_path) == expected
                    met += sum(fault.times == 0 for fault in proxy.faults)
            assert met > 100, met
