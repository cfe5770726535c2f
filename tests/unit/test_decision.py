"""What a decision refuses: sidecars that do not fit, damaged heads and lists; and what its rules say."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardline_common.assembly import engine as engine_module
from shardline_common.assembly.decider import Decision
from shardline_common.assembly.engine import Engine
from shardline_common.assembly.inputs import Inputs
from shardline_common.assembly.near import find_components
from shardline_common.assembly.shard_rows import ShardReader, key_range
from shardline_common.assembly.sidecar import BANDS, RECORDS, SIGNATURES, write_sidecar
from shardline_common.dataset.chain import Totals
from shardline_common.dataset.decision import DecisionHead, DropList, decode_drops
from shardline_common.dataset.decision_rules import NearRules, Rules, SampleRules, ShardRules
from shardline_common.errors import FailureCode, JobFailed
from tests.make import job
from tests.sidecar_inputs import SPLITS, decide, every_rule, landed, seeded_records, totals_of

KEEP_ALL = every_rule(
    duplicate_ids="keep",
    exact=False,
    against=(),
    near=None,
    sample=None,
    exact_splits=False,
    shards=ShardRules(count=2, multiple=1, limit=1, equal=False),
)
KEPT_TOGETHER = NearRules(bands=3, rows=2, seed=0, verify=None, remove=False)
SOME = seeded_records(60, seed=2)


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inputs, Decision]:
    """A decision with drop lists and moved groups."""
    folder = tmp_path_factory.mktemp("decided")
    rules = replace(KEEP_ALL, exact=True, near=KEPT_TOGETHER)
    inputs = landed(folder / "in", [SOME], rules, ())
    decision = decide(folder, inputs, rules)
    assert decision.head.moved is not None
    assert decision.head.moved.count
    assert decision.drops
    return inputs, decision


def test_no_records_at_all(tmp_path: Path) -> None:
    head = decide(
        tmp_path, Inputs(Totals(), ()), every_rule(against=(), shards=ShardRules(None, 1, 9, False))
    ).head
    assert [(split.name, split.rows, split.shards) for split in head.splits] == [
        (name, 0, ()) for name, _ in SPLITS[2]
    ]
    assert (head.kept.records, head.dropped, head.warnings) == (0, {}, ())


def test_a_split_without_rows_has_a_list_of_its_own(tmp_path: Path) -> None:
    rules = replace(KEEP_ALL, splits=SPLITS[1], sample=SampleRules(rows=1, fraction=None, seed=0))
    decision = decide(tmp_path, landed(tmp_path / "in", [SOME], rules, ()), rules)
    empty = [split for split in decision.head.splits if not split.shards]
    assert empty
    for split in empty:
        lines = decode_drops(decision.drops[split.name, 0].read_bytes(), split.drops)
        assert {one.reason for one in lines} == {"sampled_out"}
    assert "has 0 rows, fewer than the 2 shards" in " ".join(decision.head.warnings)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda inputs: replace(inputs, records=inputs.records[:1]), "rows"),
        (lambda inputs: replace(inputs, records=[*inputs.records, inputs.records[0]]), "rows"),
        (lambda inputs: replace(inputs, totals=replace(inputs.totals, rejected={})), "rejections"),
        (lambda inputs: replace(inputs, totals=replace(inputs.totals, dead={})), "dead letters"),
        (lambda inputs: replace(inputs, totals=replace(inputs.totals, bytes=1)), "bytes of rows"),
        (lambda inputs: replace(inputs, totals=replace(inputs.totals, hash_sum=1)), "the sum of id hashes"),
    ],
)
def test_sidecars_that_do_not_fit_the_chains_fail(
    tmp_path: Path, change: Callable[[Inputs], Inputs], what: str
) -> None:
    inputs = change(landed(tmp_path / "in", [SOME[:30], SOME[30:]], KEEP_ALL, ()))
    with pytest.raises(JobFailed, match=f"do not fit the chains: {what}") as raised:
        decide(tmp_path, inputs, KEEP_ALL)
    assert raised.value.code == FailureCode.CONSERVATION


def test_a_record_in_two_sidecars_fails_although_the_sums_fit(tmp_path: Path) -> None:
    inputs = landed(tmp_path / "in", [SOME, SOME], KEEP_ALL, ())
    assert inputs.totals == totals_of([*SOME, *SOME])
    with pytest.raises(JobFailed, match="a record twice"):
        decide(tmp_path, inputs, KEEP_ALL)


@pytest.mark.parametrize(
    ("place", "rules"),
    [
        ("content", replace(KEEP_ALL, exact=True)),
        ("sample", replace(KEEP_ALL, sample=SampleRules(1, None, 0))),
        ("size", KEEP_ALL),
    ],
)
def test_rows_that_lack_what_a_rule_needs_fail(tmp_path: Path, place: str, rules: Rules) -> None:
    names = [name for name, _ in RECORDS.columns]
    row: list[Any] = [1, "a", 0, None, None, None, 5, bytes(16), 6, 7, 8, 1, 5000, 0, 9, 8]
    row[names.index(place)] = None
    inputs = landed(tmp_path / "in", [[]], rules, ())
    write_sidecar(inputs.records[0].path, RECORDS, [[[value] for value in row]])
    inputs = replace(inputs, totals=Totals(rows=1, bytes=0 if place == "size" else 9, hash_sum=8))
    with pytest.raises(JobFailed, match=f"1 rows of the sidecars have no {place}"):
        decide(tmp_path, inputs, rules)


@pytest.mark.parametrize("fault", ["rejected", "missing", "short"])
def test_bands_and_signatures_that_do_not_fit_fail(tmp_path: Path, fault: str) -> None:
    """Of two records with equal bands, one is no row, or has no signature, or a short one."""
    verify = None if fault == "rejected" else 0.5
    rules = replace(KEEP_ALL, near=replace(KEPT_TOGETHER, verify=verify))
    row = replace(SOME[0], status=0, reason=None, signature=(1, 2, 3, 4, 5, 6))
    records = [replace(row, position=at, order=at) for at in (1, 2)]
    if fault == "rejected":
        records[0] = replace(records[0], status=1, reason="empty")
    inputs = landed(tmp_path / "in", [records], rules, ())
    if fault != "rejected":
        signatures = [bytes(24), bytes(20)] if fault == "short" else [bytes(24)]
        write_sidecar(inputs.signatures[0].path, SIGNATURES, [[[1, 2][: len(signatures)], signatures]])
    with pytest.raises(JobFailed, match="do not fit each other") as raised:
        decide(tmp_path, inputs, rules)
    assert raised.value.code == FailureCode.DATASET_DAMAGED


def test_a_chain_of_near_duplicates_is_one_cluster_in_few_rounds(tmp_path: Path) -> None:
    """Each record resembles the next one only. Labels that move by one record need 20,000 rounds."""
    engine = Engine(tmp_path / "engine", 64 << 20, 1)
    rounds: list[str] = []
    run = engine.run
    engine.run = lambda name: rounds.append(name) or run(name)  # type: ignore[method-assign, func-returns-value]
    engine._execute(
        "CREATE TABLE edges AS SELECT n + 1 AS position, n AS stays FROM range(20000) AS numbers(n)"
    )
    find_components(engine)
    assert engine.rows("SELECT min(label), max(label), count(*) FROM labels") == [(0, 0, 20_001)]
    assert rounds.count("component_round") < 20
    engine.close()


@pytest.mark.slow
def test_a_decision_that_spills_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    count = 300_000
    random = np.random.default_rng(1)
    numbers = np.arange(count)
    hashes = random.integers(0, 2**64, (4, count), "uint64")
    records = [
        numbers,
        [f"id-{number % 140_000}" for number in numbers.tolist()],
        np.zeros(count, "int8"),
        [None] * count,
        [None] * count,
        [None] * count,
        hashes[0],
        [(number % 130_000).to_bytes(16, "big") for number in numbers.tolist()],
        hashes[1],
        hashes[2],
        (numbers % 140_000).astype("uint64"),
        numbers,
        numbers,
        numbers,
        numbers,
        hashes[3],
    ]
    by_key = np.argsort(hashes[0], kind="stable")
    records = [
        [column[at] for at in by_key] if isinstance(column, list) else column[by_key] for column in records
    ]
    folder = tmp_path / "in"
    folder.mkdir()
    shards = ShardRules(count=7, multiple=1, limit=1, equal=True)
    rules = every_rule(against=(), near=None, sample=SampleRules(100_000, None, 0), shards=shards)
    inputs = landed(folder, [[]], rules, ())
    write_sidecar(inputs.records[0].path, RECORDS, [records])
    totals = Totals(rows=count, bytes=int(numbers.sum()), hash_sum=int((numbers % 140_000).sum()))
    inputs = replace(inputs, totals=totals)
    # Less than a process may have, so that few records do not fit.
    monkeypatch.setattr(engine_module, "_SMALLEST_LIMIT", 40 << 20)
    heads, spilled = [], []
    close = Engine.close

    def note_spill(self: Engine) -> None:
        spilled.append((self._folder / "spill").exists())
        close(self)

    monkeypatch.setattr(Engine, "close", note_spill)
    for name, memory in (("small", 1), ("large", 1 << 30)):
        (tmp_path / name).mkdir()
        heads.append(decide(tmp_path / name, inputs, rules, memory_bytes=memory).head)
    assert spilled == [True, False]
    assert heads[0] == heads[1]
    assert heads[0].dropped.keys() == {"duplicate_id", "duplicate", "sampled_out", "remainder"}


def test_a_head_is_read_as_it_was_written(decided: tuple[Inputs, Decision]) -> None:
    head = decided[1].head
    assert DecisionHead.decode(head.encode()) == head
    for body in (
        b"",
        b"{}",
        head.encode()[:-2],
        head.encode().replace(b'"version"', b'"more": 1, "version"'),
    ):
        with pytest.raises(JobFailed, match="the head of the decision") as raised:
            DecisionHead.decode(body)
        assert raised.value.code == FailureCode.DATASET_DAMAGED


def test_lists_of_another_decision_are_refused(tmp_path: Path, decided: tuple[Inputs, Decision]) -> None:
    inputs, decision = decided
    (split, number), path = next(iter(decision.drops.items()))
    body, sidecars = path.read_bytes(), [one.path for one in inputs.records]
    other = tmp_path / "other.jsonl"
    with pytest.raises(JobFailed, match="moved groups"):
        ShardReader(tmp_path / "engine", decision.head, None, 1, 1)
    reader = ShardReader(tmp_path / "engine", decision.head, decision.moved, 1, 1)
    for lines in (b"", body * 2, body.replace(b"[", b"[1", 1), body[: body.index(b"\n") + 1] + body):
        other.write_bytes(lines)
        with pytest.raises(JobFailed, match="drop list of shard") as raised:
            list(reader.rows(split, number, sidecars, other))
        assert raised.value.code == FailureCode.DATASET_DAMAGED
        with pytest.raises(JobFailed, match="a drop list"):
            decode_drops(lines, DropList(body.count(b"\n"), "0" * 64))
    with pytest.raises(JobFailed, match="drop list of shard"):
        list(reader.rows(split, number, sidecars, None))
    rows = list(reader.rows(split, number, sidecars, path))
    assert sum(batch.num_rows for batch in rows) == decision.head.split(split).shards[number].rows
    with pytest.raises(JobFailed, match="the sidecars give"):
        list(reader.rows(split, number, [*sidecars, *sidecars], path))
    reader.close()


def test_segments_are_named_by_their_place_in_the_list(tmp_path: Path) -> None:
    inputs = landed(tmp_path / "in", [SOME[:20], SOME[20:40], SOME[40:]], KEEP_ALL, ())
    head = decide(tmp_path, inputs, KEEP_ALL).head
    reader = ShardReader(tmp_path / "engine", head, None, 64 << 20, 2)
    segment_of = {
        one.position: number
        for number, part in enumerate((SOME[:20], SOME[20:40], SOME[40:]))
        for one in part
    }
    for order in ([0, 1, 2], [2, 0, 1]):
        sidecars = [inputs.records[number].path for number in order]
        batches = list(reader.rows("train", 1, sidecars, None))
        found = [(one["position"], order[one["segment"]]) for batch in batches for one in batch.to_pylist()]
        assert found == [(position, segment_of[position]) for position, _ in found]
        assert {segment for _, segment in found} == {0, 1, 2}
    reader.close()


def test_bounds_of_keys_come_from_the_statistics(tmp_path: Path) -> None:
    inputs = landed(tmp_path / "in", [SOME, []], KEEP_ALL, ())
    bounds = key_range(inputs.records[0].path)
    assert bounds is not None
    assert bounds[0] <= min(one.key for one in SOME)
    assert bounds[1] >= max(one.key for one in SOME)
    assert key_range(inputs.records[1].path) is None
    with pytest.raises(JobFailed, match="sidecar"):
        key_range(write_bands(tmp_path))


def write_bands(folder: Path) -> Path:
    path = folder / "bands.parquet"
    write_sidecar(path, BANDS, [[[0], [1], [2]]])
    return path


def test_large_clusters_that_stay_together_are_warned_of(tmp_path: Path) -> None:
    rules = replace(KEEP_ALL, near=KEPT_TOGETHER, splits=SPLITS[1])
    alike = [replace(one, status=0, reason=None, signature=(1,) * 6) for one in SOME]
    head = decide(tmp_path, landed(tmp_path / "in", [alike], rules, ()), rules).head
    assert head.clusters is not None
    assert (head.clusters.count, head.clusters.records) == (1, 60)
    assert any("near duplicates connect 60 rows, 100 % of all" in warning for warning in head.warnings)
    assert sorted(split.rows for split in head.splits) == [0, 60]


def test_rules_of_a_job() -> None:
    assert Rules.of(job(output={"layout": "assembled", "shard_bytes": 5000}), ()) == Rules(
        duplicate_ids="keep",
        exact=False,
        ignore_case=False,
        against=(),
        near=None,
        sample=None,
        splits=(("train", 1.0),),
        exact_splits=False,
        order_seed=0,
        shards=ShardRules(count=None, multiple=1, limit=5000, equal=False),
    )
    spec = job(
        quality={"duplicate_ids": "first"},
        dedup={"exact": True, "ignore_case": True, "near": {"verify": 0.8}, "against": ["s3://a/b"]},
        sample={"fraction": 0.5, "seed": 3},
        output={
            "order": "source",
            "shards": {"multiple_of": 8, "equal": True},
            "splits": {"train": 0.9, "validation": 0.1, "exact": True},
        },
    )
    rules = Rules.of(spec, ["digest"])
    assert rules == Rules(
        duplicate_ids="first",
        exact=True,
        ignore_case=True,
        against=("digest",),
        near=NearRules(bands=14, rows=8, seed=0, verify=0.8, remove=True),
        sample=SampleRules(rows=None, fraction=0.5, seed=3),
        splits=(("validation", 0.1), ("train", 0.9)),
        exact_splits=True,
        order_seed=None,
        shards=ShardRules(count=None, multiple=8, limit=spec.output.shard_bytes, equal=True),
    )
    assert rules.near is not None
    assert rules.near.needed == 90
    assert rules.bounds() == (int(0.1 * 2**64), None)
    # Half of a row is a whole one.
    assert (rules.row_targets(15), rules.row_targets(14), rules.row_targets(0)) == ((2,), (1,), (0,))


def test_near_duplicates_that_stay_are_those_of_leak() -> None:
    spec = job(output={"splits": {"train": 0.9, "validation": 0.1, "leak": "near"}})
    near = Rules.of(spec, ()).near
    assert near is not None
    assert (near.remove, near.needed) == (False, None)
