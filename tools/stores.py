"""`make stores`: the table of docs/stores-s3.md, measured on every S3 server that starts on this machine.

`python -m tools.stores [NAME …]` takes only the servers whose name contains one of the words.
"""

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from deploy.dev.service import ServiceError
from shardline.cli.console import print_line, print_message
from shardline_common.errors import ObjectExists, ShardlineError
from shardline_common.storage.probe import WRITERS, probe_create_only
from shardline_common.storage.s3 import S3Options, S3Store, open_s3
from tools.s3_servers import SERVERS, S3Server

RACES = 40
_SUITE = "tests/contract/test_object_store.py"
_COUNTS = re.compile(r"(\d+) (passed|failed|error)")
_RETENTION = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}


@dataclass(frozen=True, slots=True)
class Row:
    """What one server did."""

    store: str
    source: str
    probe: str
    races: str
    suite: str
    lock: str

    def __str__(self) -> str:
        cells = (self.store, self.source, self.probe, self.races, self.suite, self.lock)
        return f"| {' | '.join(cells)} |"


COLUMNS = ("store", "from", "probe", f"races lost, of {RACES}", "contract suite", "object lock")


def main() -> None:
    """Print the table, and on stderr which servers did not start."""
    words = [word.lower() for word in sys.argv[1:]]
    chosen = [one for one in SERVERS if not words or any(word in one.name.lower() for word in words)]
    rows = []
    for kind in chosen:
        with tempfile.TemporaryDirectory(prefix="shardline-s3-", ignore_cleanup_errors=True) as folder:
            server = kind(Path(folder))
            print_message(f"{server.name} …")
            try:
                server.start()
                rows.append(asyncio.run(_measure(server)))
            except ServiceError as error:
                print_message(f"{server.name} did not start: {error}")
            finally:
                server.stop()
    head = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"
    print_line("\n".join([head, *map(str, rows)]))


async def _measure(server: S3Server) -> Row:
    options = _options(server, f"tried-{token_hex(4)}")
    async with open_s3(options) as client:
        await client.call(options.bucket, "create", lambda s3: s3.create_bucket(Bucket=options.bucket))
        store = S3Store(client, options.bucket, "sets")
        probe = await _said(lambda: probe_create_only(store))
        races = await _said(lambda: _races(store))
    return Row(
        f"{server.name} {server.release()}",
        server.source,
        probe,
        races,
        await asyncio.to_thread(_suite, server, options.bucket),
        await _said(lambda: _lock(server)),
    )


def _options(server: S3Server, bucket: str) -> S3Options:
    return S3Options(
        bucket,
        endpoint_url=server.endpoint,
        access_key_id=server.keys[0],
        secret_access_key=server.keys[1],
        addressing_style="path",
    )


async def _said(call: Callable[[], Awaitable[str | None]]) -> str:
    try:
        return await call() or "passes"
    except ShardlineError as error:
        print_message(f"  {error}")
        return "refused" if "create-only" in str(error) else "fails"


async def _races(store: S3Store) -> str:
    lost = 0
    for number in range(RACES):
        key = f"race/{number}"
        wins = await asyncio.gather(*(_creates(store, key, b"%d" % writer) for writer in range(WRITERS)))
        lost += sum(wins) != 1
    return str(lost)


async def _creates(store: S3Store, key: str, body: bytes) -> bool:
    try:
        await store.create(key, body)
    except ObjectExists:
        return False
    return True


def _suite(server: S3Server, bucket: str) -> str:
    environment = os.environ | {
        "S3_ENDPOINT_URL": server.endpoint,
        "S3_BUCKET": bucket,
        "AWS_ACCESS_KEY_ID": server.keys[0],
        "AWS_SECRET_ACCESS_KEY": server.keys[1],
    }
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "--tb=line", "-m", "server", _SUITE]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)  # noqa: S603 - our tests
    output = done.stdout.decode(errors="replace")
    print_message("\n".join(f"  {line}" for line in output.splitlines() if line.startswith("FAILED")))
    counts = {kind: int(count) for count, kind in _COUNTS.findall(output)}
    passed = counts.get("passed", 0)
    return f"{passed} of {sum(counts.values())}" if counts else "fails"


async def _lock(server: S3Server) -> str:
    """Put into a bucket with default retention, delete, and look for the version."""
    options = _options(server, f"locked-{token_hex(4)}")
    async with open_s3(options) as client:
        try:
            await client.call(options.bucket, "lock", lambda s3: _make_locked(s3, options.bucket))
        except ShardlineError as error:
            print_message(f"  {error}")
            return "has none"
        store = S3Store(client, options.bucket, "sets")
        await store.create("a/1", b"1")
        kept = await store.purge("a/", versions=True)
        listed = [info.key async for info in store.list("")]
        good = kept is not None and kept.named and not listed
        return "works" if good else f"a locked object was {'removed' if kept is None else 'not named'}"


async def _make_locked(s3: Any, bucket: str) -> None:
    await s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    # AWS does it by itself, S3Mock does not.
    await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    await s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=_RETENTION)


if __name__ == "__main__":
    main()
