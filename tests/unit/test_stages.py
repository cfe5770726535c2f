"""The stages of an assembled job: their events in any order, and what a view of the job makes of them."""

import io
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from shardline.cli.panel import job_panel
from shardline.cli.progress import Screen, job_line
from shardline.services.client import JobTable
from shardline.services.job_rates import JobRates, RateEstimator
from shardline.services.job_view import JobView
from shardline_common.dataset.decision_rules import Rules
from shardline_common.dataset.events import Event, EventTotals, event_message, fold
from shardline_common.dataset.stage_events import (
    STAGE_HEADER,
    Counts,
    Stage,
    StageEvent,
    stage_message,
    stage_of,
)
from shardline_common.job.spec import JobSpec
from shardline_common.job.state import JobState, State, checkpoint
from shardline_common.ports.broker import Message, Record
from shardline_common.telemetry.metrics import Metrics
from tests.make import job

DECIDED = Counts(70, 700, {"duplicate": 20, "empty": 10}, {"invalid_json": 3}, ("split a is small",))
LANDED = Event("test", 1, 0, 103, 90, 900, "now", {"empty": 10}, {"invalid_json": 3})


def spec() -> JobSpec:
    return job(dedup={"exact": True})


def stage(name: Stage, done: int, parts: int, counts: Counts | None = None, attempt: int = 1) -> StageEvent:
    return StageEvent("test", attempt, name, done, parts, datetime.now(UTC).isoformat(), counts)


def record(message: Message) -> Record:
    return Record(0, 0, message.key, message.value, message.headers)


def table_of(state: JobState, messages: list[Message]) -> JobTable:
    table = JobTable()
    table.apply_checkpoints([record(checkpoint(state))])
    table.apply_events([record(message) for message in messages])
    return table


def state_of(name: State) -> JobState:
    return JobState(spec(), state=name, planned=name is not State.QUEUED, source_count=103, progress=1.0)


def view(name: State, event: StageEvent | None, *, alone: bool = True, progress: float = 1.0) -> JobView:
    state = replace(state_of(name), progress=progress)
    return JobView(state, EventTotals(), by_reading=alone, stage_event=event)


@given(st.permutations(range(6)), st.integers())
def test_the_furthest_stage_counts_in_whatever_order_events_come(order: list[int], seed: int) -> None:
    stages = [
        stage(Stage.DECIDING, 0, 3),
        stage(Stage.DECIDING, 2, 3),
        stage(Stage.ASSEMBLING, 0, 8, DECIDED),
        stage(Stage.ASSEMBLING, 8, 8, DECIDED),
    ]
    # The worker's event of the last segment may come last, and so may a repeat of an earlier stage.
    messages = [event_message(replace(LANDED, next=1, rows=1)), event_message(LANDED)]
    messages += map(stage_message, stages)
    mixed = [messages[number] for number in order]
    mixed += random.Random(seed).sample(messages, 3)
    found = table_of(state_of(State.COMPLETING), mixed).job("test")
    assert found.stage_event == stages[-1]
    assert found.progress == EventTotals(
        103, DECIDED.rows, DECIDED.bytes, dict(DECIDED.rejected), dict(DECIDED.dead)
    )


def test_a_retry_that_lands_again_is_as_far_as_the_attempt_before() -> None:
    before, again = stage(Stage.ASSEMBLING, 5, 8, DECIDED), stage(Stage.DECIDING, 0, 3, attempt=2)
    for messages in ([before, again], [again, before]):
        found = table_of(state_of(State.COMPLETING), [stage_message(one) for one in messages]).job("test")
        assert found.stage_event == before
    running = table_of(state_of(State.RUNNING), [stage_message(before)]).job("test")
    assert running.stage is Stage.LANDING


def test_clients_that_know_no_stages_add_nothing() -> None:
    message = stage_message(stage(Stage.ASSEMBLING, 5, 8, DECIDED))
    # What a client of version 0.1 does with each record.
    old = Event(**orjson.loads(message.value or b""))
    assert fold([LANDED, old]) == fold([LANDED])


@pytest.mark.parametrize(
    "header",
    [b"", b"[]", b"{", b'{"stage": "deciding"}', b'{"job_id": "test", "attempt": 1, "stage": "polishing"}'],
)
def test_a_stage_that_cannot_be_read_changes_nothing(header: bytes) -> None:
    message = stage_message(stage(Stage.DECIDING, 0, 1))._replace(headers=((STAGE_HEADER, header),))
    assert stage_of(record(message)) is None
    found = table_of(state_of(State.COMPLETING), [event_message(LANDED), message]).job("test")
    assert found.stage_event is None
    assert found.progress == fold([LANDED])


def test_a_stage_event_survives_its_encoding_and_new_fields() -> None:
    of_step = replace(stage(Stage.DECIDING, 1, 4), step="pairs", step_share=0.25)
    for event in (stage(Stage.DECIDING, 1, 4), of_step, stage(Stage.ASSEMBLING, 5, 8, DECIDED)):
        assert stage_of(record(stage_message(event))) == event
        assert StageEvent.decode(orjson.dumps(orjson.loads(event.encode()) | {"later": 1})) == event


def test_no_stage_begins_with_most_of_the_work_left() -> None:
    steps = [
        view(State.QUEUED, None, progress=0.0),
        view(State.RUNNING, None, progress=0.5),
        view(State.RUNNING, None, progress=0.9999),
        view(State.COMPLETING, None),
        view(State.COMPLETING, stage(Stage.DECIDING, 2, 3)),
        view(State.COMPLETING, stage(Stage.ASSEMBLING, 0, 8, DECIDED)),
        view(State.COMPLETING, stage(Stage.ASSEMBLING, 4, 8, DECIDED)),
        view(State.COMPLETING, stage(Stage.ASSEMBLING, 8, 8, DECIDED)),
        view(State.COMPLETED, stage(Stage.ASSEMBLING, 8, 8, DECIDED)),
    ]
    ratios = [one.ratio for one in steps]
    assert ratios == sorted(ratios)
    assert ratios[3] == pytest.approx(0.6)
    assert ratios[-2] < ratios[-1] == 1.0
    assert [one.stage for one in steps[:-1]] == [
        None,
        *["landing"] * 2,
        *["deciding"] * 2,
        *["assembling"] * 3,
    ]
    assert steps[-1].stage is None
    # A dataset without a row has no shards.
    assert view(State.COMPLETING, stage(Stage.ASSEMBLING, 0, 0, Counts(0, 0))).ratio < 1.0


def test_a_stream_job_has_no_stage() -> None:
    one = JobView(
        JobState(job(), state=State.RUNNING, planned=True, progress=0.5), EventTotals(), by_reading=True
    )
    assert one.stage is None
    assert one.ratio == 0.5
    assert one.phase == "running"
    assert one.to_json()["stage"] is None


def test_what_a_person_and_a_program_see_of_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    deciding = view(State.COMPLETING, stage(Stage.DECIDING, 1, 4))
    assembling = view(State.COMPLETING, stage(Stage.ASSEMBLING, 12, 64, DECIDED))
    shown = io.StringIO()
    Console(file=shown, width=120).print(job_panel(assembling, JobRates(0.0, 0.0, 9.0, 0.0)))
    assert "assembling 12 of 64 shards" in shown.getvalue()
    assert "documents/s" not in shown.getvalue()
    assert "kept 0" in shown.getvalue()
    assert job_line(deciding, JobRates()).startswith("test: deciding, 62.5%, read 103, landed 0 (0 B)")
    assert "warning: split a is small" in shown.getvalue()
    body = assembling.to_json()
    assert (body["warnings"], deciding.to_json()["warnings"]) == (["split a is small"], [])
    assert (body["stage"], body["stage_done"], body["stage_parts"]) == ("assembling", 12, 64)
    assert orjson.loads(orjson.dumps(body))["stage"] == "assembling"
    pairs = replace(stage(Stage.DECIDING, 3, 4), step="pairs", step_share=0.5)
    within = view(State.COMPLETING, pairs)
    assert job_line(within, JobRates()).startswith("test: deciding pairs (step 4 of 4), 68.8%")
    assert within.to_json()["stage_step"] == "pairs"
    assert pairs.rank > stage(Stage.DECIDING, 3, 4).rank
    screen = Screen(None, lambda: 0.0)
    for one in (view(State.RUNNING, None), view(State.COMPLETING, None), deciding, deciding, assembling):
        screen.show(one)
    assert capsys.readouterr().err.splitlines() == [
        "test: landing",
        "test: deciding",
        "test: assembling 12 of 64 shards",
    ]


def test_the_time_left_is_that_of_the_stage() -> None:
    estimator = RateEstimator()
    estimator.add(view(State.RUNNING, None, progress=0.1), 0.0)
    assert estimator.add(view(State.RUNNING, None, progress=0.2), 1.0).left == pytest.approx(0.88 / 0.06)
    estimator.add(view(State.COMPLETING, stage(Stage.DECIDING, 0, 4)), 2.0)
    assert estimator.add(view(State.COMPLETING, stage(Stage.DECIDING, 2, 4)), 3.0).left is None
    estimator.add(view(State.COMPLETING, stage(Stage.ASSEMBLING, 16, 64, DECIDED)), 4.0)
    rates = estimator.add(view(State.COMPLETING, stage(Stage.ASSEMBLING, 32, 64, DECIDED)), 5.0)
    assert rates.left == pytest.approx(2.0)


def test_a_stage_that_goes_on_does_not_wait() -> None:
    long_ago = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    fresh = view(State.COMPLETING, stage(Stage.ASSEMBLING, 12, 64, DECIDED), alone=False)
    fresh = replace(fresh, state=replace(fresh.state, updated_at=long_ago))
    assert fresh.waiting is None
    for event, waits_for in (
        (stage(Stage.DECIDING, 0, 4), "a worker, which decides the dataset"),
        (stage(Stage.ASSEMBLING, 12, 64, DECIDED), "workers, which assemble the shards"),
        (stage(Stage.ASSEMBLING, 64, 64, DECIDED), "a worker, which publishes the dataset"),
    ):
        still = replace(fresh, stage_event=replace(event, at=long_ago))
        assert str(still.waiting).endswith(waits_for)


async def test_the_gauge_of_a_stage_is_1_for_those_before() -> None:
    metrics = Metrics()
    metrics.stage("one", Stage.DECIDING, 0.25)
    name = "shardline_stage_progress_ratio"
    found = {
        one: metrics.registry.get_sample_value(name, {"dataset_job": "one", "stage": one})
        for one in ("landing", "deciding", "assembling")
    }
    assert found == {"landing": 1.0, "deciding": 0.25, "assembling": 0.0}
    metrics.remove_job("one")
    assert metrics.registry.get_sample_value(name, {"dataset_job": "one", "stage": "landing"}) is None


def test_the_steps_of_a_decision_are_named_before_they_run() -> None:
    everything = job(
        dedup={"exact": True, "near": True},
        quality={"duplicate_ids": "first"},
        sample={"rows": 5},
        output={"splits": {"a": 0.5, "b": 0.5, "exact": True}},
    )
    assert Rules.of(everything, ["digest"]).steps == (
        "ids",
        "exact",
        "against",
        "pairs",
        "components",
        "sample",
        "splits",
        "cuts",
    )
    assert Rules.of(job(output={"order": "source"}), ()).steps == ("cuts",)
