"""The finished dataset: conservation proof, manifest and `_SUCCESS`.

Everything written here is a pure function of job, plan, chain and outcome record, so that of many
competing finishers all write the same bytes and it does not matter which of them wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from shardline_common.dataset.card import dataset_card
from shardline_common.dataset.chain import Chain, ChainRecord, Digest, Totals, total
from shardline_common.errors import FailureCode, JobFailed, ObjectExists
from shardline_common.job.columns import Columns
from shardline_common.job.names import Layout
from shardline_common.job.outcome import Outcome
from shardline_common.job.plan import Plan
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, PartitionState
from shardline_common.ports.store import ObjectStore
from shardline_common.runtime.failpoints import failpoint

_QUALITY_UNITS = 10_000


def prove(produced: Sequence[PartitionState], tips: Sequence[ChainRecord | None], source_count: int) -> None:
    """The conservation proof.

    For every partition produced = written + rejected + dead and the hash sums agree; the total
    equals the source's own count.

    Raises:
        JobFailed: naming the first sum that disagrees.
    """
    for number, (sent, tip) in enumerate(zip(produced, tips, strict=True)):
        held = tip.upto if tip else Totals()
        if held.records != sent.sequence:
            raise _broken(
                f"partition {number}: {sent.sequence} messages were produced, {held.records} are in the chain"
            )
        if held.hash_sum != sent.hash_sum:
            raise _broken(
                f"partition {number}: the hash sum of the document ids disagrees with the producer's"
            )
    counted = sum(part.sequence for part in produced)
    if counted != source_count:
        raise _broken(f"the source counted {source_count} documents, {counted} were produced")


def _broken(message: str) -> JobFailed:
    return JobFailed(FailureCode.CONSERVATION, message, hint="retry the job; if it stays, report it")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset's keys in its store."""

    store: ObjectStore
    spec: JobSpec

    @property
    def layout(self) -> Layout:
        """The dataset's keys."""
        return Layout.of(self.spec)

    async def tip(self, partition: int, known: ChainRecord | None = None) -> ChainRecord | None:
        """The chain's last record of a partition; `known` is where to look on from."""
        return await Chain(self.store, self.layout, partition).tip(known)

    async def plan(self) -> Plan:
        """The job's plan. Raises ObjectMissing, in a dataset that was deleted."""
        return Plan.decode(await self.store.get(self.layout.plan))

    async def publish(self, outcome: Outcome) -> None:
        """Write manifest, card and `_SUCCESS`, in this order; what is there already stands."""
        manifest = await self.manifest(outcome, await self.plan())
        body = orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        await self._create(self.layout.manifest, body, "application/json")
        failpoint("worker.after_manifest")
        await self._create(self.layout.card, dataset_card(manifest).encode(), "text/markdown")
        await self._create(self.layout.success, manifest["digest"].encode() + b"\n", "text/plain")
        failpoint("worker.after_success")

    async def _create(self, key: str, body: bytes, content_type: str) -> None:
        try:
            await self.store.create(key, body, content_type=content_type)
        except ObjectExists:
            if await self.store.get(key) != body:
                raise JobFailed(
                    FailureCode.NOT_REPRODUCIBLE, f"{key} was written before with other content"
                ) from None

    async def manifest(self, outcome: Outcome, plan: Plan) -> dict[str, Any]:
        """The manifest: every shard, every sum, and the digest."""
        columns = Columns.from_json(plan.columns)
        digest, shards, by_split = Digest(), [], dict[str, Totals]()
        for partition in range(self.spec.total_partitions):
            async for record in Chain(self.store, self.layout, partition).records():
                digest.add(record)
                by_split[record.split] = by_split.get(record.split, Totals()).plus(record.segment)
                if record.key is not None:
                    shards.append(manifest_shard(record, self.layout))
        sums = total(by_split.values())
        return {
            "version": 1,
            "job": self.spec.model_dump(mode="json"),
            "spec_digest": self.spec.digest,
            "digest": digest.hexdigest(),
            "attempt": outcome.attempt,
            "software": outcome.software,
            "accepted_at": outcome.accepted_at,
            "completed_at": outcome.at,
            "warnings": _warnings(sums, plan),
            "totals": sums_json(sums),
            "splits": {split: sums_json(part) for split, part in sorted(by_split.items())},
            "rejected": sums.rejected,
            "dead_letters": sums.dead,
            "source": {"type": self.spec.source.type, "count": outcome.source_count, **plan.notes},
            "partitions": [
                {"partition": number, "messages": count, "hash_sum": f"{hash_sum:016x}"}
                for number, (count, hash_sum) in enumerate(outcome.produced)
            ],
            "schema": {"columns": columns.to_json(), "features": columns.features()},
            "shards": shards,
        }


def _warnings(sums: Totals, plan: Plan) -> list[str]:
    found = [] if sums.rows else ["empty"]
    return found + [name for name in ("left_out", "degraded") if plan.notes.get(name)]


def manifest_shard(record: ChainRecord, layout: Layout) -> dict[str, Any]:
    """A segment with rows as the manifest lists it; the key is relative to the dataset."""
    key = layout.data(record.split, record.partition, record.first)
    return {
        "key": key.removeprefix(layout.root),
        "split": record.split,
        "partition": record.partition,
        "first": record.first,
        "next": record.next,
        "rows": record.segment.rows,
        "bytes": record.segment.bytes,
        "sha256": record.sha256,
    }


def sums_json(sums: Totals) -> dict[str, Any]:
    """Totals as the manifest shows them."""
    mean = round(sums.quality / sums.rows / _QUALITY_UNITS, 4) if sums.rows else None
    return {
        "documents": sums.records,
        "rows": sums.rows,
        "rejected": sum(sums.rejected.values()),
        "dead_letters": sum(sums.dead.values()),
        "bytes": sums.bytes,
        "words": sums.words,
        "mean_quality": mean,
    }


def produced_counts(state: JobState) -> list[list[int]]:
    """[messages, hash sum] per partition, as the outcome record keeps them."""
    return [[part.sequence, part.hash_sum] for part in state.partitions]
