"""Before a real store, a proxy gives answers that are short, wrong or endless: no dataset is short."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
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
from tests.support.lying_store import PAGE_LIES, READ_LIES, Lie, other_etag, unframed

DOCUMENTS = 437
FILES = 10
PAGES = "^/[^/]+/?$"
PAGE_ACTIONS: list[str | Lie] = [*PAGE_LIES, "empty page"]


@asynccontextmanager
async def client_of(s3: S3, endpoint: str) -> AsyncIterator[S3Client]:
    options = S3Options(
        s3.bucket,
        endpoint_url=endpoint,
        access_key_id=s3.access_key,
        secret_access_key=s3.secret_key,
        addressing_style="path",
    )
    async with open_s3(options) as client:
        yield client


async def digest(store: ObjectStore, client: S3Client, prefix: str, folder: Path) -> str:
    spec = small_job(
        source={"type": "files", "paths": [f"s3://{client._options.bucket}/{prefix}/in/*.jsonl"]}
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
                await files.create(f"in/{number}.jsonl", b"".join(lines[number::FILES]))
            expected = await digest(MemoryStore(), client, prefix, tmp_path)
            # 1. Each wrong answer to three reads of source objects, or to three pages of the list.
            faults = [Fault("GET", "/in/", lie, 3) for lie in READ_LIES]
            faults += [Fault("GET", PAGES, action, 3) for action in PAGE_ACTIONS]
            for fault in faults:
                proxy.faults = [fault]
                assert await digest(MemoryStore(), client, prefix, tmp_path) == expected, fault
                assert fault.times == 0, fault
            # 2. The dataset on the same store: every kind of its objects is read wrongly now and then.
            lies = [lie for lie in READ_LIES if lie not in (unframed, other_etag)]
            proxy.faults = [
                Fault("GET", part, lie, 1)
                for part, lie in product(("/_state/", "/data/", "manifest.json", "_SUCCESS"), lies)
            ]
            proxy.faults += [Fault("GET", PAGES, action, 1) for action in PAGE_ACTIONS]
            own = S3Store(client, seaweed.bucket, f"{prefix}/out")
            assert await digest(own, client, prefix, tmp_path) == expected
            assert sum(fault.times == 0 for fault in proxy.faults) > len(proxy.faults) // 2
