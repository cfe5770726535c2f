"""`verify`: read every byte of a finished dataset again and check it against its manifest and chains."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

import orjson

from shardline_common.dataset.chain import Chain, ChainRecord, Digest, Totals, total
from shardline_common.dataset.manifest import Manifest, ProducedPartition, manifest_shard, sums_json
from shardline_common.dataset.read import plain_bytes
from shardline_common.errors import JobFailed, ObjectMissing
from shardline_common.job.columns import Columns, check_row
from shardline_common.job.names import Layout
from shardline_common.ports.store import ObjectStore

_MAX_PROBLEMS = 20


@dataclass(slots=True)
class Report:
    """The result of `verify`. `problems` are up to 20 sentences in reading order; `ok` when there is none."""

    ok: bool = False
    digest: str = ""
    rows: int = 0
    shards: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report as `verify --json` prints it."""
        return asdict(self)


class Verifier:
    """Checks one dataset.

    Args:
        store: the store that holds it.
        root: key of the folder with manifest.json, ending with a slash; "" is the root of the store.
        on_shard: called after each shard with the number of shards read, and the number of all shards.
    """

    def __init__(
        self, store: ObjectStore, root: str, on_shard: Callable[[int, int], None] = lambda _done, _all: None
    ) -> None:
        self._store = store
        self._root = root
        self._on_shard = on_shard
        self._report = Report()

    async def run(self) -> Report:
        """Read and check the whole dataset. A fault is a problem in the report, not an error.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        report = self._report
        manifest = await self._read_manifest()
        if manifest is None:
            return report
        layout = Layout(self._root, manifest.job.output.compression)
        try:
            await self._check_chains(layout, manifest)
        except (JobFailed, ObjectMissing) as error:
            self._add_problem(str(error))
        await self._check_success(layout)
        report.ok = not report.problems
        return report

    def _add_problem(self, text: str) -> None:
        if len(self._report.problems) < _MAX_PROBLEMS:
            self._report.problems.append(text)

    async def _read_manifest(self) -> Manifest | None:
        try:
            return Manifest.decode(await self._store.get(self._root + "manifest.json"))
        except ObjectMissing:
            self._add_problem(
                "there is no manifest.json: the dataset is not finished, or this is not its folder"
            )
        except JobFailed as error:
            self._add_problem(str(error))
        return None

    async def _check_chains(self, layout: Layout, manifest: Manifest) -> None:
        digest, shards, by_split = Digest(), list[dict[str, Any]](), dict[str, Totals]()
        columns = Columns.from_json(manifest.rows_schema.columns)
        spec = manifest.job
        if [part.partition for part in manifest.partitions] != list(range(spec.total_partitions)):
            self._add_problem("the manifest lists other partitions than the job has")
            return
        for produced in manifest.partitions:
            committed = Totals()
            async for record in Chain(self._store, layout, produced.partition).records():
                digest.add(record)
                committed = record.upto
                by_split[record.split] = by_split.get(record.split, Totals()).plus(record.segment)
                self._check_keys(layout, record)
                if record.key is not None:
                    shards.append(manifest_shard(record, layout))
                    await self._check_shard(layout, record, columns)
                    self._on_shard(len(shards), len(manifest.shards))
            self._check_partition(produced, committed)
        self._check_totals(by_split, digest.hexdigest(), shards, manifest)

    def _check_keys(self, layout: Layout, record: ChainRecord) -> None:
        # The keys begin with the root of the store that the dataset was written to; it may have moved since.
        expected = layout.data(record.split, record.partition, record.first).removeprefix(layout.root)
        has_rows = record.segment.rows > 0
        if (record.key is not None) != has_rows or (record.key and not record.key.endswith(expected)):
            self._add_problem(
                f"partition {record.partition}, sequence {record.first}: the chain names {record.key}, "
                f"not {expected if has_rows else 'no shard'}"
            )

    def _check_partition(self, produced: ProducedPartition, committed: Totals) -> None:
        if committed.records != produced.messages or f"{committed.hash_sum:016x}" != produced.hash_sum:
            self._add_problem(
                f"partition {produced.partition}: {produced.messages} messages were produced, "
                f"{committed.records} are in the chain (or their hash sums disagree)"
            )

    def _check_totals(
        self, by_split: Mapping[str, Totals], digest: str, shards: list[dict[str, Any]], manifest: Manifest
    ) -> None:
        report, sums = self._report, total(by_split.values())
        report.digest, report.rows, report.shards = digest, sums.rows, len(shards)
        report.rejected, report.dead_letters = sums.rejected, sums.dead
        if sums.records != manifest.source.count:
            self._add_problem(
                f"the source counted {manifest.source.count} documents, the chain {sums.records}"
            )
        if shards != manifest.shards:
            self._add_problem("the manifest lists other shards than the chain")
        splits = {split: sums_json(part) for split, part in by_split.items()}
        if (manifest.totals, manifest.splits) != (sums_json(sums), splits):
            self._add_problem("the manifest's totals are not those of the chain")
        if (manifest.rejected, manifest.dead_letters) != (sums.rejected, sums.dead):
            self._add_problem("the manifest's rejections or dead letters are not those of the chain")
        if digest != manifest.digest:
            self._add_problem(f"the digest is {digest}, the manifest says {manifest.digest}")

    async def _check_shard(self, layout: Layout, record: ChainRecord, columns: Columns) -> None:
        key = layout.data(record.split, record.partition, record.first)
        digest, rows, size = sha256(), 0, 0
        try:
            async for line in _lines(plain_bytes(self._store, key, layout.compression)):
                digest.update(line)
                size += len(line)
                rows += 1
                if (problem := _row_problem(line, columns)) is not None:
                    self._add_problem(f"{key}, line {rows}: {problem}")
        except (ObjectMissing, JobFailed) as error:
            self._add_problem(f"{key}: {error}")
            return
        if digest.hexdigest() != record.sha256:
            self._add_problem(f"{key}: its sha256 is {digest.hexdigest()}, the chain says {record.sha256}")
        if (rows, size) != (record.segment.rows, record.segment.bytes):
            self._add_problem(
                f"{key}: {rows} rows and {size} bytes, the chain says {record.segment.rows} and "
                f"{record.segment.bytes}"
            )

    async def _check_success(self, layout: Layout) -> None:
        try:
            content = (await self._store.get(layout.success)).decode(errors="replace").strip()
        except ObjectMissing:
            self._add_problem("there is no _SUCCESS: the dataset is not finished")
            return
        if content != self._report.digest:
            self._add_problem("_SUCCESS names another digest")


def _row_problem(line: bytes, columns: Columns) -> str | None:
    if not line.endswith(b"\n"):
        return "the last row is cut off"
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return f"no valid JSON: {error}"
    return check_row(row, columns)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest
