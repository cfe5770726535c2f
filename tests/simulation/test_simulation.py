"""The guarantees hold in every schedule, a seed determines its schedule, and the oracle finds bugs."""

import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from unittest.mock import patch

import pytest

from shardline_producer.notifications.outbox import NotificationOutbox
from tests.simulation.assembled_mutants import ASSEMBLED, HARMLESS_ASSEMBLED
from tests.simulation.campaign import SLICES, catch_all, first_caught, run_many, sums
from tests.simulation.mutants import CAUGHT, HARMLESS, planted
from tests.simulation.scenario import FATES, TOPIC_LOST_LATE, scenario
from tests.simulation.schedule import logged_errors, run_schedule
from tests.simulation.slice_mutants import SLICED

NOTIFIED = 30
_DECIDED_TWICE = 10
SCHEDULES = int(os.environ.get("SHARDLINE_SIMULATION_SCHEDULES", "1000"))


@pytest.mark.timeout(3600)
def test_every_schedule_keeps_the_guarantees() -> None:
    verdicts = list(run_many(range(1, SCHEDULES + 1)))
    broken = {verdict.seed: verdict.problems for verdict in verdicts if verdict.problems}
    assert not broken, f"replay with `python -m tests.simulation --first SEED --schedules 1`: {broken}"
    happened = sums(verdicts)
    for what in ("kill", "end", "stop", "lost store", "lost broker", "outage store", "cancel", "retry"):
        assert happened[what] > SCHEDULES // 10, happened
    for what in (
        *("cut by rows", "cut by scanned bytes", "cut by records", "tail without rows", "dead letter last"),
        *("dead letters", "doubles", "huge", "empty partition", "topic half full", "compressed"),
    ):
        assert happened[what] > SCHEDULES // 20, happened
    for what in ("empty source", "too many dead letters", "completed", "failed", "cancelled"):
        assert happened[what] > SCHEDULES // 100, happened
    for what in filter(None, FATES):
        assert happened[what] > SCHEDULES // 200, happened


@pytest.mark.timeout(600)
def test_every_schedule_with_slices_and_two_producers_keeps_the_guarantees() -> None:
    count = max(20, SCHEDULES // 50)
    verdicts = [run_schedule(seed, slices=SLICES) for seed in range(1, count + 1)]
    broken = {verdict.seed: verdict.problems for verdict in verdicts if verdict.problems}
    assert not broken, f"replay with `python -m tests.simulation --slices {SLICES} --first SEED`: {broken}"
    happened = sums(verdicts)
    for what in ("kill", "stop", "lost broker", "cancel", "retry", "completed"):
        assert happened[what] > count // 10, happened


def test_every_schedule_of_an_assembled_job_keeps_the_guarantees() -> None:
    wanted = {
        *("fault while landing", "fault while deciding", "decision continued", "late rows"),
        *("killed when half decided", "killed when half assembled", "cancel", "retry", "completed"),
        *("shards", "splits", "duplicate_id", "duplicate", "near_duplicate", "sampled_out"),
    }
    verdicts = []
    # Further ones until all of it has happened: a change of the product changes what a schedule meets.
    for seed in range(12, 112):
        verdicts.append(run_schedule(seed, assembled=True))
        if len(verdicts) >= SCHEDULES // 80 and all(sums(verdicts)[what] for what in wanted):
            break
    broken = {verdict.seed: verdict.problems for verdict in verdicts if verdict.problems}
    assert not broken, f"replay with `python -m tests.simulation --assembled --first SEED`: {broken}"
    assert all(sums(verdicts)[what] for what in wanted), sums(verdicts)


def test_a_dataset_is_assembled_without_the_topic_of_its_attempt() -> None:
    for seed in (1, 5):
        verdict = run_schedule(seed, calm=True, assembled=True, fate=TOPIC_LOST_LATE)
        assert (verdict.problems, verdict.state) == ([], "completed")
        assert verdict.counts[TOPIC_LOST_LATE] == 1


def test_a_seed_determines_its_schedule_of_an_assembled_job() -> None:
    # The decision runs on a thread.
    assert run_schedule(2, assembled=True) == run_schedule(2, assembled=True)


def test_a_calm_schedule_makes_the_expected_dataset() -> None:
    for seed in range(1, 41):
        verdict = run_schedule(seed, calm=True)
        assert not verdict.problems, verdict
        expected = scenario(seed)
        assert verdict.digest == ("" if expected.overflows else expected.expected.digest)


def test_a_seed_determines_its_schedule() -> None:
    here = [run_schedule(seed) for seed in (3, 4, 3)]
    assert here[0] == here[2]
    assert here[0].trace != here[1].trace
    # Another process with other hashes of text replays it exactly.
    command = [sys.executable, "-m", "tests.simulation", "--first", "3", "--schedules", "1", "--trace"]
    there = subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert f"trace {here[0].trace}" in there.stdout


def test_every_end_is_notified_in_every_schedule() -> None:
    verdicts = [run_schedule(seed, notifying=True) for seed in range(1, NOTIFIED + 1)]
    assert {verdict.seed: verdict.problems for verdict in verdicts if verdict.problems} == {}
    happened = sums(verdicts)
    # Attempts that were cancelled are among them, and producers died on the way.
    assert happened["deliveries"] >= happened["notified"] > NOTIFIED
    assert happened["kill"] > NOTIFIED


def test_a_notification_counted_too_early_is_detected() -> None:
    with patch.object(NotificationOutbox, "delivered", property(lambda self: frozenset(self._tasks))):
        verdicts = (run_schedule(seed, notifying=True) for seed in range(1, 200))
        assert any("delivered were" in problem for verdict in verdicts for problem in verdict.problems)


def test_the_oracle_collects_logged_errors_only() -> None:
    with logged_errors() as logged:
        for name in ("shardline_common.x", "shardline_consumer.worker", "shardline_producer.attempt"):
            logging.getLogger(name).error("%s: a bug in Shardline", name)
            logging.getLogger(name).warning("store does not answer")
    assert [line.partition(".")[0] for line in logged] == [
        "shardline_common",
        "shardline_consumer",
        "shardline_producer",
    ]


@pytest.fixture(scope="module")
def caught(request: pytest.FixtureRequest) -> dict[str, tuple[int, str]]:
    """When the planted bugs of the selected tests are caught, and by what; found on all cores."""
    bugs = [*CAUGHT, *SLICED, *ASSEMBLED]
    selected = [name for name in bugs for item in request.session.items if item.name.endswith(f"[{name}]")]
    return {name: (schedules, problem) for name, schedules, problem in catch_all(selected, 200, quick=True)}


@pytest.mark.parametrize("name", [*CAUGHT, *SLICED, *ASSEMBLED])
def test_a_planted_bug_is_caught(
    name: str, caught: dict[str, tuple[int, str]], record_property: Callable[[str, object], None]
) -> None:
    schedules, problem = caught[name]
    record_property(f"caught by schedule {schedules}", problem)
    assert schedules, f"{name} was not caught"


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_mutant_breaks_no_guarantee(name: str) -> None:
    assert first_caught(name, 40) == (0, "")


@pytest.mark.parametrize("name", HARMLESS_ASSEMBLED)
def test_workers_that_decide_at_once_break_no_guarantee(name: str) -> None:
    happened = Counter[str]()
    with planted(HARMLESS_ASSEMBLED[name]):
        for seed in range(1, 60):
            # Without faults, the workers come to each stage at about the same time.
            verdict = run_schedule(seed, assembled=True, calm=True)
            assert verdict.problems == [], seed
            happened.update(verdict.counts)
            if happened["decided twice"] > _DECIDED_TWICE:
                break
    assert happened["decided twice"] > _DECIDED_TWICE, happened
