"""Sidecars of generated records, decisions of them, and the comparison with what was decided by hand."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Literal

from hypothesis import strategies as st

from shardline_common.assembly.decider import Decider, Decision
from shardline_common.assembly.inputs import CONTENTS, Input, Inputs
from shardline_common.assembly.shard_rows import ShardReader, key_range, overlaps
from shardline_common.assembly.sidecar import BANDS, RECORDS, SIGNATURES, SidecarKind, write_sidecar
from shardline_common.dataset.chain import Totals
from shardline_common.dataset.decision import DecisionHead, decode_drops
from shardline_common.dataset.decision_rules import NearRules, Rules, SampleRules, ShardRules
from shardline_common.job.hashing import document_hash
from tests.decided_by_hand import ByHand, Drop, Record, band_hash

SPLITS: tuple[tuple[tuple[str, float], ...], ...] = (
    (("train", 1.0),),
    (("validation", 0.25), ("train", 0.75)),
    (("validation", 0.1), ("train", 0.6), ("test", 0.3)),
)
TOP = 2**64 - 1


class FolderSteps:
    """Results of steps in a folder; the steps that were stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.saved: list[str] = []
        folder.mkdir(exist_ok=True)

    def load(self, name: str) -> Path | None:
        path = self.folder / f"{name}.jsonl"
        return path if path.exists() else None

    def save(self, name: str, path: Path) -> None:
        self.saved.append(name)
        (self.folder / f"{name}.jsonl").write_bytes(path.read_bytes())


def seeded_records(count: int, seed: int = 1) -> list[Record]:
    """Records with some of every kind of duplicate."""
    random = Random(seed)
    records = []
    for position in random.sample(range(10 * count), count):
        status = random.choice([0] * 8 + [1, 2])
        name = f"id-{random.randrange(2 * count)}"
        alike = random.randrange(count)
        signature = tuple((alike if random.random() < 0.9 else random.randrange(99)) + at for at in range(6))
        records.append(
            Record(
                position=position,
                id=name,
                status=status,
                reason=None if status == 0 else random.choice(["empty", "below_min_score"]),
                order=random.choice([0, 2**63, random.getrandbits(64)]),
                content=random.randrange(count).to_bytes(16, "big"),
                group=random.randrange(count // 2) * (TOP // count),
                sample=random.getrandbits(64),
                id_hash=document_hash(name.encode()),
                size=random.randrange(1, 200),
                signature=signature if status == 0 and random.random() < 0.9 else None,
            )
        )
    return records


def every_rule(**changes: Any) -> Rules:
    """Rules that all drop something from seeded records."""
    rules = Rules(
        duplicate_ids="first",
        exact=True,
        ignore_case=False,
        against=("d1", "d2"),
        near=NearRules(bands=3, rows=2, seed=0, verify=0.8, remove=True),
        sample=SampleRules(rows=98, fraction=None, seed=0),
        splits=SPLITS[2],
        exact_splits=True,
        order_seed=0,
        shards=ShardRules(count=None, multiple=4, limit=1000, equal=True),
    )
    return replace(rules, **changes)


def seeded_contents(records: Sequence[Record]) -> list[set[bytes]]:
    """Contents of two other datasets, which some of the records have."""
    return [{one.content for one in records[::9]}, {one.content for one in records[::7]}]


def dealt(records: Sequence[Record], segments: int, seed: int = 0) -> list[list[Record]]:
    """The records in so many segments."""
    random = Random(seed)
    result: list[list[Record]] = [[] for _ in range(segments)]
    for one in records:
        random.choice(result).append(one)
    return result


@st.composite
def some_records(draw: st.DrawFn) -> list[Record]:
    """Records of which many share an id, a content, a band, a group or an order key."""
    count = draw(st.integers(0, 40))
    positions = draw(st.lists(st.integers(0, 2**49), min_size=count, max_size=count, unique=True))
    hashes = st.sampled_from([0, 1, 2**62, 2**63, 2**63 + 1, TOP]) | st.integers(0, TOP)
    records = []
    for position in positions:
        status = draw(st.sampled_from([0] * 6 + [1, 2]))
        name = draw(st.sampled_from("abcdefghij")) if draw(st.booleans()) else f"id-{position}"
        records.append(
            Record(
                position=position,
                id=name,
                status=status,
                reason=None if status == 0 else draw(st.sampled_from(["empty", "below_min_score"])),
                order=draw(hashes),
                content=bytes([draw(st.integers(0, 12))] * 16),
                group=draw(hashes),
                sample=draw(hashes),
                # Two ids may have one hash.
                id_hash=sum(name.encode()) % 7 + 2**63,
                size=draw(st.sampled_from([1, 5, 10, 100])),
                signature=draw(st.none() | st.tuples(*[st.integers(0, 3)] * 6)) if status == 0 else None,
            )
        )
    return records


@st.composite
def some_rules(draw: st.DrawFn) -> Rules:
    sample = draw(
        st.none()
        | st.builds(SampleRules, st.integers(1, 20), st.none(), st.just(0))
        | st.builds(SampleRules, st.none(), st.sampled_from([0.25, 0.5, 1.0]), st.just(0))
    )
    kind = draw(st.sampled_from(["bytes", "count", "multiple"]))
    shards = ShardRules(
        count=draw(st.integers(1, 5)) if kind == "count" else None,
        multiple=draw(st.integers(2, 4)) if kind == "multiple" else 1,
        limit=draw(st.sampled_from([1, 20, 60, 150, 1000])),
        equal=draw(st.booleans()),
    )
    near = draw(
        st.none()
        | st.builds(
            NearRules, st.just(3), st.just(2), st.just(0), st.sampled_from([None, 0.5, 0.8]), st.booleans()
        )
    )
    ids: Sequence[Literal["keep", "first"]] = ["keep", "first"]
    return Rules(
        duplicate_ids=draw(st.sampled_from(ids)),
        exact=draw(st.booleans()),
        ignore_case=False,
        against=draw(st.sampled_from([(), ("d1",), ("d1", "d2")])),
        near=near,
        sample=sample,
        splits=draw(st.sampled_from(SPLITS)),
        exact_splits=draw(st.booleans()),
        order_seed=0,
        shards=shards,
    )


AGAINST = st.lists(
    st.sets(st.integers(0, 12).map(lambda value: bytes([value] * 16)), max_size=3), min_size=2, max_size=2
)


def totals_of(records: Sequence[Record]) -> Totals:
    def counts(status: int) -> dict[str, int]:
        reasons = [one.reason or "" for one in records if one.status == status]
        return {reason: reasons.count(reason) for reason in set(reasons)}

    rows = [one for one in records if one.status == 0]
    return Totals(
        rows=len(rows),
        bytes=sum(one.size for one in rows),
        rejected=counts(1),
        dead=counts(2),
        hash_sum=sum(one.id_hash for one in records) % 2**64,
    )


def landed(
    folder: Path, segments: Sequence[Sequence[Record]], rules: Rules, against: Sequence[set[bytes]]
) -> Inputs:
    """The sidecars of segments with these records."""
    folder.mkdir(exist_ok=True)
    files: dict[str, list[Input]] = {"records": [], "bands": [], "signatures": [], "contents": []}

    def put(kind: SidecarKind, number: int, rows: Sequence[Sequence[Any]]) -> None:
        path = folder / f"{kind.name}-{number}.parquet"
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in kind.columns]
        files[kind.name].append(Input(path.name, path, write_sidecar(path, kind, [columns]).sha256))

    for number, segment in enumerate(segments):
        rows, offset = [], 0
        for one in sorted(segment, key=lambda one: one.key):
            is_row = one.status == 0
            place = (offset, one.size) if is_row else (None, None)
            rows.append(
                (
                    one.position,
                    one.id,
                    one.status,
                    one.reason,
                    None,
                    None,
                    one.order,
                    one.content if is_row else None,
                    one.group,
                    one.sample,
                    one.id_hash,
                    1 if is_row else None,
                    5000 if is_row else None,
                    *place,
                    one.id_hash if is_row else None,
                )
            )
            offset += one.size if is_row else 0
        put(RECORDS, number, rows)
        if rules.near is not None:
            signed = [one for one in segment if one.signature is not None]
            bands = [
                (band, band_hash(one.signature or (), band, rules.near.rows), one.position)
                for one in signed
                for band in range(rules.near.bands)
            ]
            put(BANDS, number, sorted(bands))
            if rules.near.verify is not None:
                signatures = [
                    (one.position, b"".join(value.to_bytes(4, "little") for value in one.signature or ()))
                    for one in signed
                ]
                put(SIGNATURES, number, sorted(signatures))
    for number, contents in enumerate(against):
        put(CONTENTS, number, [(content,) for content in sorted(contents)])
    return Inputs(
        totals_of([one for segment in segments for one in segment]),
        files["records"],
        files["bands"],
        files["signatures"],
        [[one] for one in files["contents"]],
    )


def decide(
    folder: Path, inputs: Inputs, rules: Rules, steps: FolderSteps | None = None, **options: Any
) -> Decision:
    options = {"memory_bytes": 64 << 20, "threads": 1} | options
    decider = Decider(folder / "decision", inputs, rules, **options)
    return decider.run(steps or FolderSteps(folder / "steps"))


def compare(folder: Path, decision: Decision, inputs: Inputs, expected: ByHand) -> None:
    """Compare all that a decision says with what was decided by hand."""
    head = DecisionHead.decode(decision.head.encode())
    assert head == decision.head
    drops: dict[int, Drop] = {}
    key_of = {one.position: one.key for one in expected.rows}
    for split in head.splits:
        starts = [key_of[shard[0]] for shard in expected.shards[split.name]]
        lists = [(shard.number, shard.drops) for shard in split.shards] or [(0, split.drops)]
        for number, of_list in lists:
            path = decision.drops.get((split.name, number))
            assert (path is None) == (of_list.count == 0)
            lines = decode_drops(path.read_bytes() if path else b"", of_list)
            assert [one.position for one in lines] == sorted({one.position for one in lines}, key=key_of.get)  # type: ignore[arg-type]
            for one in lines:
                assert one.position not in drops, "in two drop lists"
                assert expected.split_of[one.position] == split.name
                behind = [at for at, start in enumerate(starts) if start <= key_of[one.position]]
                assert number == max(behind, default=0)
                drops[one.position] = (str(one.reason), one.of)
    assert drops == expected.drops
    assert {str(reason): counted.records for reason, counted in head.dropped.items()} == {
        reason: [drop[0] for drop in drops.values()].count(reason) for reason, _ in drops.values()
    }
    assert (decision.moved is None) == (head.moved is None)
    reader = ShardReader(folder / "reader", head, decision.moved, 64 << 20, 1)
    shards: dict[str, list[list[int]]] = {}
    for split in head.splits:
        shards[split.name] = []
        for shard in split.shards:
            sidecars = [one.path for one in inputs.records if overlaps(key_range(one.path), shard)]
            rows = reader.rows(
                split.name, shard.number, sidecars, decision.drops.get((split.name, shard.number))
            )
            shards[split.name].append(
                [position for batch in rows for position in batch.column("position").to_pylist()]
            )
    reader.close()
    assert shards == expected.shards
    assert (head.clusters.count if head.clusters else 0) == len(expected.clusters)
