"""Decisions equal those that a few lines of Python make, however the records are cut into sidecars."""

import threading
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from shardline_common.assembly import engine as engine_module
from shardline_common.assembly import near as near_module
from shardline_common.assembly.decider import Decider, Decision
from shardline_common.assembly.engine import DecisionInterrupted, Engine
from shardline_common.assembly.inputs import Inputs
from shardline_common.dataset.decision import DecisionHead
from shardline_common.dataset.decision_rules import Rules
from shardline_common.errors import FailureCode, JobFailed, SpoolError
from tests.decided_by_hand import Record, decide_by_hand
from tests.sidecar_inputs import (
    AGAINST,
    FolderSteps,
    compare,
    dealt,
    decide,
    every_rule,
    landed,
    seeded_contents,
    seeded_records,
    some_records,
    some_rules,
)

RECORDS = seeded_records(400)
CONTENTS = seeded_contents(RECORDS)
STEPS = ["ids", "exact", "against", "pairs", "components", "sample", "splits", "cuts"]


def files_of(decision: Decision) -> tuple[DecisionHead, dict[tuple[str, int], bytes], bytes | None]:
    """All that a decision says, apart from the hash of the sidecars."""
    lists = {key: path.read_bytes() for key, path in decision.drops.items()}
    moved = decision.moved.read_bytes() if decision.moved else None
    return replace(decision.head, inputs_sha256=""), lists, moved


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inputs, Any]:
    """The sidecars of one segment, and the undisturbed decision by every rule."""
    folder = tmp_path_factory.mktemp("decided")
    inputs = landed(folder / "in", [RECORDS], every_rule(), CONTENTS)
    decision = decide(folder, inputs, every_rule())
    compare(folder, decision, inputs, decide_by_hand(RECORDS, every_rule(), CONTENTS))
    assert len(decision.head.dropped) == 6, "each rule drops something"
    assert len(decision.head.rejected) == len(decision.head.dead) == 2
    return inputs, files_of(decision)


# No shrinking: an example takes a tenth of a second, so it would take minutes.
FIXTURE = settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FIXTURE
@given(data=st.data(), records=some_records(), rules=some_rules(), contents=AGAINST)
def test_decision_is_that_of_a_few_lines_of_python(
    tmp_path: Path, data: st.DataObject, records: list[Record], rules: Rules, contents: list[set[bytes]]
) -> None:
    against = contents[: len(rules.against)]
    expected = decide_by_hand(records, rules, against)
    segments: list[list[Record]] = [[] for _ in range(data.draw(st.integers(1, 5)))]
    for one in records:
        data.draw(st.sampled_from(segments)).append(one)
    inputs = landed(tmp_path / "in", segments, rules, against)
    for path in (tmp_path / "steps").glob("*"):
        path.unlink()
    if expected.too_few:
        with pytest.raises(JobFailed, match="fewer than the"):
            decide(tmp_path, inputs, rules)
        return
    compare(tmp_path, decide(tmp_path, inputs, rules), inputs, expected)


@pytest.mark.parametrize(("segments", "threads"), [(1, 2), (4, 1), (16, 2)])
def test_decision_is_the_same_however_records_are_cut_into_sidecars(
    tmp_path: Path, decided: tuple[Inputs, Any], segments: int, threads: int
) -> None:
    inputs = landed(tmp_path / "in", dealt(RECORDS, segments), every_rule(), CONTENTS)
    files = Random(segments).sample(list(inputs.records), len(inputs.records))
    inputs = replace(inputs, records=files, bands=inputs.bands[::-1])
    assert files_of(decide(tmp_path, inputs, every_rule(), threads=threads)) == decided[1]


def test_pairs_are_compared_in_parts_that_fit_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decided: tuple[Inputs, Any]
) -> None:
    names: list[str] = []
    read = engine_module._text

    def noted(name: str) -> str:
        names.append(name)
        return read(name)

    monkeypatch.setattr(engine_module, "_text", noted)
    monkeypatch.setattr(near_module, "_COPIES", 1_000_000)
    assert files_of(decide(tmp_path, decided[0], every_rule())) == decided[1]
    assert names.count("signed_pairs") > 2


class DyingSteps(FolderSteps):
    """Interrupts the decider when it has stored a step."""

    interrupt = staticmethod(lambda: None)

    def save(self, name: str, path: Path) -> None:
        super().save(name, path)
        self.interrupt()


def test_another_decider_goes_on_behind_the_last_step(tmp_path: Path, decided: tuple[Inputs, Any]) -> None:
    for name in STEPS:
        steps = DyingSteps(tmp_path / "steps")
        decider = Decider(tmp_path / "decision", decided[0], every_rule(), 64 << 20, 1)
        steps.interrupt = decider.interrupt
        with pytest.raises(DecisionInterrupted):
            decider.run(steps)
        assert steps.saved == [name]
        assert not (tmp_path / "decision" / "engine").exists()
    steps = DyingSteps(tmp_path / "steps")
    assert files_of(decide(tmp_path, decided[0], every_rule(), steps)) == decided[1]
    assert steps.saved == []


def test_interrupt_stops_a_running_statement(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "engine", 64 << 20, 1)
    raised: list[BaseException] = []
    begun = threading.Event()

    def run() -> None:
        begun.set()
        try:
            engine.rows("SELECT count(*) FROM range(1000000000000) AS numbers(n) WHERE n * n % 7 = 3")
        except DecisionInterrupted as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    engine.interrupt()
    thread.join(60)
    assert raised
    with pytest.raises(DecisionInterrupted):
        engine.value("SELECT 1 AS one")
    engine.close()


def test_a_step_of_other_sidecars_or_rules_is_refused(tmp_path: Path, decided: tuple[Inputs, Any]) -> None:
    steps = FolderSteps(tmp_path / "steps")
    decide(tmp_path, decided[0], every_rule(), steps)
    for rules, segments in ((every_rule(exact_splits=False), 1), (every_rule(), 2)):
        inputs = landed(tmp_path / "in", dealt(RECORDS, segments), rules, CONTENTS)
        with pytest.raises(JobFailed) as raised:
            decide(tmp_path, inputs, rules, steps)
        assert raised.value.code == FailureCode.NOT_REPRODUCIBLE


@pytest.mark.parametrize("damage", ["cut", "changed", "added", "empty", "other"])
def test_a_damaged_step_is_refused(tmp_path: Path, decided: tuple[Inputs, Any], damage: str) -> None:
    steps = FolderSteps(tmp_path / "steps")
    decide(tmp_path, decided[0], every_rule(), steps)
    path = tmp_path / "steps" / "exact.jsonl"
    body = path.read_bytes()
    other = (tmp_path / "steps" / "ids.jsonl").read_bytes()
    first_line = body[: body.index(b"\n") + 1]
    path.write_bytes(
        {
            "cut": body[: len(body) // 2],
            "changed": body.replace(b"[", b"[1", 1),
            "added": first_line + body,
            "empty": b"",
            "other": other,
        }[damage]
    )
    with pytest.raises(JobFailed, match="the step exact"):
        decide(tmp_path, decided[0], every_rule(), steps)


def test_a_folder_that_cannot_be_written_is_a_spool_error(
    tmp_path: Path, decided: tuple[Inputs, Any]
) -> None:
    decider = Decider(tmp_path / "decision", decided[0], every_rule(), 64 << 20, 1)
    (tmp_path / "decision" / "exact.jsonl").mkdir()
    with pytest.raises(SpoolError):
        decider.run(FolderSteps(tmp_path / "steps"))


def test_ids_that_may_not_come_twice_fail_the_job(tmp_path: Path, decided: tuple[Inputs, Any]) -> None:
    with pytest.raises(JobFailed, match=r"have the id of an earlier one.*'id-") as raised:
        decide(tmp_path, decided[0], every_rule(duplicate_ids="fail"))
    assert raised.value.code == FailureCode.DUPLICATE_IDS
    unique = [replace(one, id=f"id-{number}") for number, one in enumerate(RECORDS)]
    rules = every_rule(duplicate_ids="fail", against=())
    inputs = landed(tmp_path / "in", [unique], rules, ())
    decision = decide(tmp_path, inputs, rules, FolderSteps(tmp_path / "unique"))
    assert "duplicate_id" not in decision.head.dropped


# Bugs by the SQL file that they are planted into.
PLANTED = {
    "a shard without its first row": ("shard", ">= key_of", "> key_of"),
    "a shard without its last row": ("shard", "<= key_of", "< key_of"),
    "a shard with dropped rows": ("shard", "ANTI JOIN drops USING (position)", ""),
    "a shard of all splits": ("shard", "= getvariable('split')", "<> 9"),
    "a drop twice": (
        "place_drops",
        "FROM dropped JOIN",
        "FROM (SELECT * FROM dropped UNION ALL SELECT * FROM dropped) AS dropped JOIN",
    ),
    "the last duplicate stays": ("find_exact", "min(position)", "max(position)"),
    "duplicates of dropped rows": ("find_exact", "FROM kept GROUP BY", "FROM records GROUP BY"),
    "ties in another order": ("rows", 'BY split, "order", position', 'BY split, "order", position DESC'),
    "rejections in the shards": ("setup", "WHERE status = 0", "WHERE status < 2"),
    "the sample by position": ("sample", "BY sample, position", "BY position"),
    "pairs that are not found": ("band", "count(*) > 1", "count(*) > 2"),
    "groups in another order": ("group_counts", 'ORDER BY "group"', "ORDER BY members"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_bugs_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decided: tuple[Inputs, Any], name: str
) -> None:
    file, good, bad = PLANTED[name]
    read = engine_module._text

    def planted(wanted: str) -> str:
        return read(wanted).replace(good, bad) if wanted == file else read(wanted)

    assert good in read(file)
    monkeypatch.setattr(engine_module, "_text", planted)
    expected = decide_by_hand(RECORDS, every_rule(), CONTENTS)
    with pytest.raises((JobFailed, AssertionError, ValueError)):
        compare(tmp_path, decide(tmp_path, decided[0], every_rule()), decided[0], expected)
