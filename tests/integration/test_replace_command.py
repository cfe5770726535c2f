"""`shardline run` with a changed job under a used id, from the command line and from Python."""

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import shardline
from shardline import errors, sync
from shardline.cli.app import main
from shardline.services.sample import write_sample
from shardline_common.job.spec import parse_job


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "KAFKA_", "SHARDLINE_"))]:
        monkeypatch.delenv(name)
    write_sample(tmp_path / "sample.jsonl", 60)
    return tmp_path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command as the program does, in this process."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["shardline", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


class Input(io.StringIO):
    """What a user types; None: there is no terminal."""

    def __init__(self, answer: str | None) -> None:
        super().__init__(f"{answer}\n")
        self._answer = answer

    def isatty(self) -> bool:
        return self._answer is not None


def answers(monkeypatch: pytest.MonkeyPatch, answer: str | None) -> None:
    monkeypatch.setattr(sys, "stdin", Input(answer))


def job(**changes: object) -> dict[str, object]:
    body: dict[str, object] = {
        "job_id": "laws",
        "name": "laws",
        "source": {"type": "files", "paths": ["sample.jsonl"]},
        "partitions": 1,
    }
    return body | changes


def write_job(**changes: object) -> str:
    Path("job.json").write_text(json.dumps(job(**changes)))
    return "job.json"


def files(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_a_changed_job_is_refused_and_told_the_ways_on(command: Command) -> None:
    assert command("run", write_job()).code == 0
    before = files("datasets")
    done = command("run", write_job(quality={"min_score": 0.4}, partitions=2))
    assert (done.code, done.out) == (2, "")
    assert "differs in partitions, quality.min_score" in done.err
    assert "--replace deletes the old dataset first" in done.err
    assert "leave it out" in done.err
    assert "Traceback" not in done.err
    assert files("datasets") == before
    # The other way on: an id of its own.
    Path("job.json").write_text(json.dumps({**job(partitions=2), "job_id": None}))
    done = command("run", "job.json")
    assert done.code == 0
    assert len(list(Path("datasets/laws").iterdir())) == 2


def test_replace_with_yes_makes_the_new_dataset(command: Command) -> None:
    assert command("run", write_job()).code == 0
    alone = command("run", write_job(name="moved", quality={"min_score": 0.4}), "--output", "alone", "--json")
    done = command("run", "job.json", "--replace", "--yes", "--json")
    assert done.code == 0, done.err
    assert not Path("datasets/laws").exists()
    reports = [sync.verify(json.loads(one.out)["dataset"]) for one in (alone, done)]
    assert reports[0] == reports[1]
    assert reports[1].ok
    # The same command again finds its own dataset, and keeps it.
    before = files("datasets")
    assert command("run", "job.json", "--replace", "--yes").code == 0
    assert files("datasets") == before


@pytest.mark.parametrize(("answer", "code"), [(None, 2), ("n", 1), ("y", 0)])
def test_replace_asks_before_it_deletes(
    command: Command, monkeypatch: pytest.MonkeyPatch, answer: str | None, code: int
) -> None:
    assert command("run", write_job()).code == 0
    before = files("datasets")
    answers(monkeypatch, answer)
    done = command("run", write_job(partitions=2), "--replace")
    assert done.code == code, done.err
    assert (files("datasets") == before) is (code != 0)
    assert "Traceback" not in done.err
    assert ("add --yes" in done.err) is (answer is None)


def test_replace_of_a_job_that_has_its_id_alone_asks_nothing(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, None)
    assert command("run", write_job(), "--replace").code == 0
    assert command("run", write_job(), "--replace").code == 0


async def test_python_raises_the_fields_that_differ_and_replaces() -> None:
    first = await shardline.run(job())
    changed = job(partitions=2, labels={"team": "legal"})
    with pytest.raises(errors.JobConflict, match=r"differs in labels\.team, partitions") as conflict:
        await shardline.run(changed)
    assert conflict.value.fields == ("labels.team", "partitions")
    assert "replace=True deletes the old dataset first" in (conflict.value.hint or "")
    assert (await shardline.verify(first.dataset)).digest == first.digest
    second = await shardline.run(changed, replace=True)
    assert (second.dataset, second.digest != first.digest) == (first.dataset, True)
    assert (await shardline.verify(second.dataset)).ok


def test_the_sync_twin_replaces_too() -> None:
    sync.run(job())
    with pytest.raises(errors.JobConflict):
        sync.run(job(partitions=2))
    assert sync.run(job(partitions=2), replace=True).rows


async def test_a_run_in_progress_is_not_replaced() -> None:
    started = asyncio.Event()
    first = asyncio.create_task(
        shardline.run(job(), settings={"source_rate": 40}, on_progress=lambda _: started.set())
    )
    await started.wait()
    with pytest.raises(errors.UsageError, match="another run is writing"):
        await shardline.run(job(partitions=2), replace=True)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    # What it left is replaced.
    assert (await shardline.run(job(partitions=2), replace=True)).rows


NO_ORIGINALS = {"dead_letter_originals": False}


def spec_in(dataset: str) -> dict[str, object]:
    return dict(json.loads((Path(dataset) / "manifest.json").read_bytes())["job"])


@pytest.mark.parametrize("form", ["mapping", "model"])
async def test_the_setting_is_the_default_of_the_jobs_field(form: str) -> None:
    def given(**changes: object) -> shardline.Job | dict[str, object]:
        body = job(job_id=f"job-{len(changes)}", **changes)
        return body if form == "mapping" else shardline.Job.model_validate(body)

    plain = await shardline.run(given(), output="plain")
    assert "dead_letter_originals" not in spec_in(plain.dataset)
    without = await shardline.run(given(), output="without", settings=NO_ORIGINALS)
    assert spec_in(without.dataset)["dead_letter_originals"] is False
    # What the job says goes before the setting.
    kept = await shardline.run(given(dead_letter_originals=True), output="kept", settings=NO_ORIGINALS)
    assert "dead_letter_originals" not in spec_in(kept.dataset)
    own = await shardline.run(given(dead_letter_originals=False), output="own")
    assert spec_in(own.dataset)["dead_letter_originals"] is False


def test_the_command_line_uses_the_setting_in_the_id_too(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {name: value for name, value in job().items() if name != "job_id"}
    Path("job.json").write_text(json.dumps(body))
    monkeypatch.setenv("SHARDLINE_DEAD_LETTER_ORIGINALS", "false")
    done = command("run", "job.json", "--json")
    assert done.code == 0, done.err
    expected = parse_job(json.dumps(body | NO_ORIGINALS), default_id=True)
    assert json.loads(done.out)["job_id"] == expected.job_id
    assert json.loads(done.out)["spec"]["dead_letter_originals"] is False
