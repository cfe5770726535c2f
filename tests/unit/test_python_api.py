"""The Python API on files and directories: what it returns, what it raises, and what it leaves behind."""

import asyncio
import contextlib
import dataclasses
import inspect
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import types
import typing
from pathlib import Path

import pydantic
import pytest
from typer.testing import CliRunner

import shardline
from shardline import errors, sync
from shardline.cli.app import app
from shardline.services.sample import INVALID_LINES, write_sample
from shardline_common.job.spec import parse_job
from shardline_common.storage.directory import HIDDEN, DirectoryStore

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = 600
FUNCTIONS = (
    "cancel",
    "explain",
    "features",
    "preview",
    "retry",
    "run",
    "status",
    "stream",
    "submit",
    "verify",
)
ROOMS = ("shardline_common", "shardline_producer", "shardline_consumer", "shardline.")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a user: a sample, and no settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("AWS_", "S3_", "KAFKA_", "SHARDLINE_"))]:
        monkeypatch.delenv(name)
    write_sample(tmp_path / "sample.jsonl", DOCUMENTS, broken=True)
    return tmp_path


def job(**changes: object) -> dict[str, object]:
    body: dict[str, object] = {
        "name": "laws",
        "source": {"type": "files", "paths": ["sample.jsonl"]},
        "output": {"shard_bytes": 65_536},
        "partitions": 2,
    }
    return body | changes


async def test_run_verify_preview_and_stream_agree(own_folder: Path) -> None:
    seen: list[shardline.Progress] = []
    result = await shardline.run(job(), output=own_folder / "out", on_progress=seen.append)
    assert result.dataset == f"{own_folder}/out/laws/{result.job_id}"
    assert result.source_documents == DOCUMENTS + len(INVALID_LINES)
    assert (seen[-1].job_id, seen[-1].state, seen[-1].ratio) == (result.job_id, "completed", 1.0)
    assert (seen[-1].rows, seen[-1].bytes) == (result.rows, result.bytes)
    assert result.warnings == ()

    checked: list[shardline.VerifyProgress] = []
    report = await shardline.verify(result.dataset, on_progress=checked.append)
    assert (report.ok, report.problems, report.digest) == (True, (), result.digest)
    assert (report.rows, report.shards) == (result.rows, result.shards)
    assert (report.rejected, report.dead_letters) == (result.rejected, result.dead_letters)
    assert [one.shards for one in checked] == list(range(1, result.shards + 1))
    assert {one.total for one in checked} == {result.shards}

    looked = await shardline.preview(job())
    assert (looked.exact, looked.documents) == (True, result.source_documents)
    assert (looked.rows, looked.bytes) == (result.rows, result.bytes)
    assert (looked.rejected, looked.dead_letters) == (result.rejected, result.dead_letters)
    assert len(looked.sample) == result.source_documents
    assert looked.source == {"type": "files"}

    stream = shardline.stream(job())
    rows = [row async for row in stream]
    assert stream.counts == shardline.RowCounts(
        read=result.source_documents,
        rows=result.rows,
        rejected=result.rejected,
        dead_letters=result.dead_letters,
    )
    lines = [
        line for path in Path(result.dataset).glob("data/train/*") for line in path.read_text().splitlines()
    ]
    assert {json.dumps(dataclasses.asdict(row)) for row in rows} == {
        json.dumps(json.loads(line)) for line in lines
    }


def test_the_sync_twins_return_the_same() -> None:
    result = sync.run(job(), output="out")
    assert result == asyncio.run(shardline.run(job(), output="out"))
    assert sync.verify(result.dataset) == asyncio.run(shardline.verify(Path(result.dataset)))
    assert sync.preview(job(), documents=100) == asyncio.run(shardline.preview(job(), documents=100))
    stream = sync.stream(job())
    rows = list(stream)
    assert stream.counts.rows == len(rows) == result.rows

    async def streamed() -> list[shardline.Row]:
        return [row async for row in shardline.stream(job())]

    assert rows == asyncio.run(streamed())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sync_twin_takes_the_same_arguments(name: str) -> None:
    ours, twin = getattr(shardline, name), getattr(sync, name)
    assert inspect.signature(ours).parameters == inspect.signature(twin).parameters
    assert ours.__doc__
    assert f"shardline.{name}" in (twin.__doc__ or "")


async def test_a_sync_twin_refuses_a_running_loop() -> None:
    calls: dict[str, typing.Callable[[], object]] = {
        "run": lambda: sync.run(job()),
        "preview": lambda: sync.preview(job()),
        "explain": lambda: sync.explain("out", "x"),
        "features": lambda: sync.features("out"),
        "verify": lambda: sync.verify("out"),
        "submit": lambda: sync.submit(job()),
        "status": lambda: sync.status("laws"),
        "cancel": lambda: sync.cancel("laws"),
        "retry": lambda: sync.retry("laws"),
        "stream": lambda: sync.stream(job()),
    }
    assert tuple(sorted(calls)) == FUNCTIONS
    for name, call in calls.items():
        with pytest.raises(errors.UsageError, match="running event loop") as refused:
            call()
        assert f"shardline.{name}(" in str(refused.value.hint)


def test_a_job_is_a_model_or_a_mapping() -> None:
    source = shardline.FilesSource(type="files", paths=["sample.jsonl"])
    output = shardline.Output(shard_bytes=65_536)
    model = shardline.Job(name="laws", source=source, output=output, partitions=2)
    assert model.job_id == parse_job(json.dumps(job()), default_id=True).job_id
    assert shardline.Job.model_validate(job(job_id=None)) == model
    assert shardline.Job.model_validate(job(job_id="mine")).job_id == "mine"
    named = job(source={"type": "files", "paths": [Path("sample.jsonl")]})
    assert sync.run(model) == sync.run(job()) == sync.run(types.MappingProxyType(named))
    for wrong in ({"job_id": ""}, {"job_id": "No"}, {"colour": "red"}, {"partitions": 0}):
        with pytest.raises(pydantic.ValidationError):
            shardline.Job.model_validate(job(**wrong))
        with pytest.raises(errors.JobInvalid):
            sync.preview(job(**wrong))
    with pytest.raises(errors.JobInvalid, match=r"no JSON.*set"):
        sync.preview(job(labels={"a": {1}}))


def test_an_id_is_that_of_the_command_line(own_folder: Path) -> None:
    (own_folder / "job.json").write_text(json.dumps(job()))
    ran = CliRunner().invoke(app, ["run", "job.json", "--json"])
    assert json.loads(ran.stdout)["dataset"] == sync.run(job()).dataset


async def test_a_cancelled_run_is_continued(own_folder: Path) -> None:
    slow = {"source_rate": 400}
    whole = await shardline.run(job(), output="whole")
    committed = asyncio.Event()

    def on_progress(progress: shardline.Progress) -> None:
        if progress.rows:
            committed.set()

    task = asyncio.create_task(shardline.run(job(), output="cut", settings=slow, on_progress=on_progress))
    await committed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    left = {path for path in (own_folder / "cut").rglob("data/*/*") if path.is_file()}
    assert left
    assert not list((own_folder / "cut").rglob("_SUCCESS"))
    before = {path: path.stat().st_mtime_ns for path in left}
    again = await shardline.run(job(), output="cut")
    assert {path: path.stat().st_mtime_ns for path in left} == before
    assert dataclasses.replace(again, dataset=whole.dataset) == whole


INTERRUPTED = """
import os, signal
from shardline import sync

def on_progress(progress):
    if progress.rows:
        os.kill(os.getpid(), signal.SIGINT)

try:
    sync.run(JOB, output="out", settings={"source_rate": 400}, on_progress=on_progress)
except KeyboardInterrupt:
    print("the run was interrupted")

rows = sync.stream({"name": "x", "source": {"type": "themis"}}, settings=THEMIS)
try:
    next(rows)
except KeyboardInterrupt:
    print("the stream was interrupted")
print(list(rows), rows.counts.rows)
"""


def test_ctrl_c_raises_after_clean_up(own_folder: Path) -> None:
    (own_folder / "tmp").mkdir()
    env = os.environ | {"TMPDIR": str(own_folder / "tmp"), "PYTHONPATH": str(ROOT)}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        themis = {"themis_url": f"http://127.0.0.1:{silent.getsockname()[1]}", "themis_token": "t"}
        code = f"JOB = {job()!r}\nTHEMIS = {themis!r}\n{INTERRUPTED}"
        with subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        ) as process:
            # The stream waits for an answer that never comes.
            silent.settimeout(60)
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            said, log = process.communicate(timeout=60)
            connection.close()
    assert said == "the run was interrupted\nthe stream was interrupted\n[] 0\n", log
    assert process.returncode == 0
    assert "Traceback" not in log
    assert list((own_folder / "tmp").iterdir()) == []
    assert not list((own_folder / "out" / HIDDEN).glob("*"))
    # What the interrupted run committed is kept, and the same call ends it.
    assert list((own_folder / "out").rglob("data/train/*"))
    assert sync.verify(sync.run(job(), output="out").dataset).ok


async def test_a_second_run_into_the_same_folder_is_refused() -> None:
    started = asyncio.Event()
    first = asyncio.create_task(
        shardline.run(job(), settings={"source_rate": 400}, on_progress=lambda _: started.set())
    )
    await started.wait()
    with pytest.raises(errors.UsageError, match="another run is writing"):
        await shardline.run(job())
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await shardline.run(job())).rows


async def test_a_run_spools_in_the_folder_of_its_setting(own_folder: Path) -> None:
    with pytest.raises(errors.SpoolError, match="missing cannot be written"):
        await shardline.run(job(), settings={"spool_dir": str(own_folder / "missing")})


async def test_a_run_waits_for_the_store_also_behind_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, refused = DirectoryStore.get, list[str]()

    async def get(store: DirectoryStore, key: str) -> bytes:
        if key.endswith("manifest.json") and len(refused) < 2:
            refused.append(key)
            raise errors.StoreUnavailable("away")
        return await whole(store, key)

    monkeypatch.setattr(DirectoryStore, "get", get)
    assert (await shardline.run(job())).rows
    assert len(refused) == 2


async def test_runs_in_one_process_do_not_disturb_each_other() -> None:
    both = await asyncio.gather(*(shardline.run(job(), output=name) for name in ("one", "two")))
    alone = await shardline.run(job(), output="three")
    assert {result.digest for result in both} == {alone.digest}


async def test_an_error_of_a_callback_stops_the_run_and_is_raised() -> None:
    def broken(_: object) -> None:
        raise PermissionError("mine")

    with pytest.raises(PermissionError, match="mine"):
        await shardline.run(job(), on_progress=broken)
    result = await shardline.run(job())
    with pytest.raises(PermissionError, match="mine"):
        await shardline.verify(result.dataset, on_progress=broken)


async def test_a_failed_job_raises_its_code() -> None:
    missing = job(source={"type": "files", "paths": ["none.jsonl"]})
    for call in (shardline.run(missing), shardline.preview(missing), anext(shardline.stream(missing))):
        with pytest.raises(errors.JobFailed, match=r"none.jsonl cannot be read") as failed:
            await call
        assert failed.value.code is errors.FailureCode.SOURCE_INVALID
    strict = job(quality={"max_dead_letters": 3})
    with pytest.raises(errors.JobFailed, match="the job allows 3") as failed:
        await shardline.run(strict)
    assert failed.value.code == "too_many_dead_letters"


async def test_a_broken_dataset_is_a_result(own_folder: Path) -> None:
    result = await shardline.run(job())
    shard = next(Path(result.dataset).glob("data/train/*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    report = await shardline.verify(result.dataset)
    assert not report.ok
    assert shard.name in report.problems[0]
    nothing = await shardline.verify(own_folder)
    assert (nothing.ok, nothing.rows) == (False, 0)
    assert "manifest.json" in nothing.problems[0]


async def test_a_stream_can_be_closed_before_its_end() -> None:
    async with contextlib.aclosing(shardline.stream(job(), settings={"streaming_batch_size": 10})) as rows:
        async for _ in rows:
            break
    assert 0 < rows.counts.read < DOCUMENTS
    with pytest.raises(StopAsyncIteration):
        await anext(rows)


def test_a_sync_stream_can_be_closed_before_its_end() -> None:
    with contextlib.closing(sync.stream(job(), settings={"streaming_batch_size": 10})) as rows:
        next(rows)
    assert 0 < rows.counts.read < DOCUMENTS
    assert list(rows) == []


def test_settings_are_used_before_the_environment(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    (own_folder / "shardline.toml").write_text("themis_rate = 7\n")
    themis = job(source={"type": "themis"})
    with pytest.raises(errors.JobFailed, match="not configured"):
        sync.preview(themis)
    monkeypatch.setenv("THEMIS_URL", "http://127.0.0.1:9")
    with pytest.raises(errors.SourceUnavailable, match=r"127\.0\.0\.1:9"):
        sync.preview(themis)
    with pytest.raises(errors.SourceUnavailable, match=r"127\.0\.0\.1:19"):
        sync.preview(themis, settings={"themis_url": "http://127.0.0.1:19", "themis_token": "t"})
    with pytest.raises(errors.UsageError, match="settings: there is no setting 'themis_urls'") as refused:
        sync.preview(themis, settings={"themis_urls": "x"})
    assert "themis_url" in str(refused.value.hint)
    with pytest.raises(errors.UsageError, match=r"THEMIS_RATE \(from settings\)"):
        sync.preview(themis, settings={"themis_rate": -1})
    with pytest.raises(errors.UsageError, match="reads nothing"):
        sync.preview(themis, documents=0)


def test_the_default_executor_of_the_caller_is_kept() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(int)
        before = vars(loop)["_default_executor"]
        await shardline.run(job())
        assert vars(loop)["_default_executor"] is before

    asyncio.run(main())


def test_results_are_frozen_values() -> None:
    result = sync.run(job())
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.rows = 0  # type: ignore[misc]  # the point
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - our own
    for name in shardline.__all__:
        found = getattr(shardline, name)
        if dataclasses.is_dataclass(found):
            assert "__slots__" in vars(found), name
            assert dataclasses.fields(found), name


def named_types(annotation: object) -> set[type]:
    """The classes in an annotation, at any depth."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return {annotation}
    parts = [part for part in typing.get_args(annotation) if not isinstance(part, str | int | float)]
    flat = [one for part in parts for one in (part if isinstance(part, list) else [part])]
    return set().union(*(named_types(part) for part in flat))


def test_public_signatures_name_public_types_only() -> None:
    public = {getattr(shardline, name) for name in shardline.__all__} | {sync.SyncRowStream}
    functions = [getattr(module, name) for module in (shardline, sync) for name in FUNCTIONS]
    classes = [one for one in public if isinstance(one, type)]
    members = [
        member
        for one in classes
        if dataclasses.is_dataclass(one) or issubclass(one, shardline.RowStream | sync.SyncRowStream)
        for name, member in vars(one).items()
        if (not name.startswith("_") or name == "__init__")
        and isinstance(member, types.FunctionType | property)
    ]
    calls = [*functions, *(member.fget if isinstance(member, property) else member for member in members)]
    found: set[type] = set()
    for owner in [*calls, *classes]:
        for annotation in typing.get_type_hints(owner).values():
            assert annotation is not typing.Any, owner
            found |= named_types(annotation)
    inner = {one for one in found - public if one.__module__.startswith(ROOMS)}
    assert inner == set()
    assert shardline.Progress in found


def test_every_error_can_be_imported() -> None:
    import shardline.gateway.jwks
    import shardline_common.errors as tree
    from shardline_common.assembly.engine import DecisionInterrupted
    from shardline_producer.sources.files import file_errors

    def below(one: type[Exception]) -> set[type[Exception]]:
        return {one}.union(*map(below, one.__subclasses__()))

    # Told apart only inside: a user catches JobFailed.
    inside = {shardline.gateway.jwks.JwksUnavailable, file_errors.OtherEncoding, DecisionInterrupted}
    ours = below(errors.ShardlineError) - inside
    raised = {one for one in ours if one.__module__.startswith("shardline")}
    assert {one.__name__ for one in raised} | {"FailureCode"} == set(errors.__all__)
    assert errors.JobFailed is tree.JobFailed
    assert set(errors.__doc__.split()) >= {one.__name__ for one in raised} - {
        "Fenced",
        "OffsetOutOfRange",
        "TopicMissing",
    }


def test_an_import_is_quick_and_touches_nothing() -> None:
    code = (
        "import os, sys\n"
        "class Watched(dict):\n"
        "    def __getitem__(self, name): raise AssertionError(name)\n"
        "    get = __contains__ = __iter__ = __getitem__\n"
        "before = set(sys.modules)\n"
        "os.environ = Watched()\n"
        "import shardline\n"
        "print(*sorted(set(sys.modules) - before))\n"
        "assert 'run' in dir(shardline)\n"
        "try: shardline.nothing\n"
        "except AttributeError as error: print(error)\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    modules, unknown = done.stdout.splitlines()
    found = {name.partition(".")[0] for name in modules.split()}
    assert found - sys.stdlib_module_names == {"shardline", "shardline_common"}
    # These would be most of the time of the import; whoever imports logging could configure it.
    assert not found & {"asyncio", "logging", "typing"}
    assert unknown == "module 'shardline' has no attribute 'nothing'"
    assert shardline.__version__
