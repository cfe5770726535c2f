"""What an assembled job must make of its documents, recomputed from all of them at once."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b, sha256
from typing import Any

from shardline_common.assembly.minhash import Signer
from shardline_common.assembly.normal_text import normal_text
from shardline_common.dataset.decision_rules import Rules
from shardline_common.errors import FailureCode
from shardline_common.job.spec import JobSpec
from tests.decided_by_hand import ByHand, Record, decide_by_hand
from tests.simulation.expected import Entry, Expected, hash64

_SLICE_BITS = 48


@dataclass
class Assembled:
    """The dataset that an assembled job makes of what landed.

    `shards` has the rows of each shard by split and number. `drops` says of each position that is dropped
    why, and what stays instead of it.
    """

    spec: JobSpec
    landed: Expected
    records: list[Record] = field(default_factory=list)
    rows: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        entries = [
            (partition // self.spec.partitions, entry)
            for partition, part in enumerate(self.landed.partitions)
            for segment in part
            for entry in segment.entries
        ]
        near = self.spec.near
        signer = None if near is None else Signer(near.bands, near.rows, near.seed)
        for number, entry in entries:
            record = _record(self.spec, number << _SLICE_BITS | entry.position[-1], entry, signer)
            self.records.append(record)
            self.rows[record.position] = entry.row

    @cached_property
    def decided(self) -> ByHand:
        """The decision."""
        return decide_by_hand(self.records, Rules.of(self.spec, ()), ())

    @property
    def refusal(self) -> FailureCode | None:
        """How the decision fails; None: it does not."""
        drops = Counter(reason for reason, _ in self.decided.drops.values())
        if self.spec.quality.duplicate_ids == "fail" and drops["duplicate_id"]:
            return FailureCode.DUPLICATE_IDS
        return FailureCode.TOO_FEW_ROWS if self.decided.too_few else None

    @property
    def drops(self) -> dict[int, tuple[str, int | str | None]]:
        """Reason and what stays, of each position that the decision drops."""
        return self.decided.drops

    @cached_property
    def shards(self) -> dict[tuple[str, int], bytes]:
        """The rows of each shard, by split and number."""
        return {
            (split, number): b"".join(self.rows[position] for position in shard)
            for split, shards in self.decided.shards.items()
            for number, shard in enumerate(shards)
        }

    def count(self, split: str) -> int:
        """How many shards a split has."""
        return len(self.decided.shards[split])

    @cached_property
    def digest(self) -> str:
        """The dataset digest."""
        digest = sha256(_json(["assembled-v1"]))
        for (split, number), rows in sorted(self.shards.items()):
            digest.update(_json([split, number, rows.count(b"\n"), sha256(rows).hexdigest()]))
        rejected, dead = Counter[str](), Counter[str]()
        for segment in self.landed.segments:
            rejected.update(entry.reason for entry in segment.entries if entry.reason)
            dead.update(entry.dead["reason"] for entry in segment.entries if entry.dead)
        rejected.update(reason for reason, _ in self.drops.values())
        hash_sum = sum(record.id_hash for record in self.records) % 2**64
        digest.update(_json([sorted(rejected.items()), sorted(dead.items()), len(self.records), hash_sum]))
        return digest.hexdigest()

    def features(self) -> Counter[str]:
        """What the decision has, to show that the seeds reach all of it."""
        found = Counter(reason for reason, _ in self.drops.values())
        found["shards"] = len(self.shards)
        found["splits"] = len(self.spec.splits) - 1
        found["source order"] = self.spec.order_seed is None
        found["refused decision"] = self.refusal is not None
        found["moved groups"] = any(
            self.decided.group_of[record.position] != record.group for record in self.decided.rows
        )
        return found


def _record(spec: JobSpec, position: int, entry: Entry, signer: Signer | None) -> Record:
    row: dict[str, Any] = json.loads(entry.row) if entry.row else {}
    group = row.get("metadata", {}).get(spec.output.group_by) if spec.output.group_by else None
    seed = spec.sample.seed if spec.sample is not None else 0
    ignore_case = spec.dedup is not None and spec.dedup.ignore_case
    text = normal_text(row.get("text", ""), ignore_case=ignore_case)
    signature = signer.sign(row["text"]) if signer is not None and row else None
    return Record(
        position=position,
        id=entry.key.decode(),
        status=0 if entry.row else 1 if entry.reason else 2,
        reason=entry.reason or entry.dead.get("reason"),
        order=entry.order,
        content=blake2b(text.encode(), digest_size=16).digest(),
        group=hash64(entry.key if group is None else str(group).encode(), b"split"),
        sample=hash64(seed.to_bytes(8, "big") + entry.key, b"sample"),
        id_hash=hash64(entry.key, b"document"),
        size=len(entry.row),
        signature=None if signature is None else _values(signature),
    )


def _values(signature: bytes) -> tuple[int, ...]:
    return tuple(memoryview(signature).cast("I"))


def _json(value: Sequence[Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
