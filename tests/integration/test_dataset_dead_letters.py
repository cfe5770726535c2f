"""`dead-letters` reads a dataset's folder: the same rows as from Kafka, whole, on disk and on S3."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from shardline.cli.app import app
from shardline.services.dataset_dead_letters import dead_letters_at
from shardline.services.local_run import LocalRun, run_job
from shardline.services.sample import INVALID_LINES, write_sample
from shardline.services.wiring.stores import s3_options
from shardline_common.errors import JobFailed, UsageError
from shardline_common.job.spec import parse_job
from shardline_common.settings.load import Settings
from shardline_common.storage.s3 import S3Store, open_s3
from shardline_producer.sources.documents import DeadLetterReason, meaning
from tests.services import S3


async def made(folder: Path, compression: str = "none") -> LocalRun:
    source = folder / "sample.jsonl"
    write_sample(source, 300, broken=True)
    with source.open("a") as file:
        file.write(json.dumps({"document_id": "large", "content": "x" * 90_000}) + "\n")
    body: dict[str, Any] = {
        "job_id": "laws",
        "name": "laws",
        "source": {"type": "files", "paths": [str(source)]},
        "quality": {"max_dead_letter_ratio": 1},
        "output": {"shard_bytes": 65_536, "compression": compression},
        "partitions": 2,
        "max_document_bytes": 80_000,
    }
    return await run_job(parse_job(orjson.dumps(body)), str(folder / "out"), Settings(), lambda _: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    return asyncio.run(made(tmp_path_factory.mktemp("dead")))


@pytest.fixture
def copied(run: LocalRun, tmp_path: Path) -> Path:
    """A copy of the dataset, to change."""
    return Path(shutil.copytree(run.dataset, tmp_path / "laws"))


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["dead-letters", *arguments])


@pytest.mark.parametrize("compression", ["none", "zstd"])
async def test_a_dataset_has_the_dead_letters_that_kafka_has(tmp_path: Path, compression: str) -> None:
    result = await made(tmp_path, compression)
    found = await dead_letters_at(result.dataset, Settings(), originals=False)
    assert found.missing == 0
    assert len(found.by_key) == len(INVALID_LINES) + 1
    # In memory, as in Kafka. Its hint of what is too large names the limit too.
    expected = {one.key: one for one in result.dead_letters}
    for key, one in found.by_key.items():
        same = replace(one, hint=expected[key].hint) if one.reason == "too_large" else one
        assert same == expected[key]
    [large] = [one for one in found.by_key.values() if one.reason == "too_large"]
    assert large.hint.endswith(": the document is larger than max_document_bytes: 90,039 bytes")
    with_originals = await dead_letters_at(result.dataset, Settings(), originals=True)
    assert {one.original for one in with_originals.by_key.values()} >= set(INVALID_LINES)


def test_the_commands_list_filter_and_show(run: LocalRun) -> None:
    dataset = run.dataset
    for listed in (invoked("list", dataset), invoked(dataset)):
        assert listed.exit_code == 0, listed.output
        assert listed.stdout.splitlines()[0].split() == ["key", "reason", "what", "is", "wrong"]
        assert len(listed.stdout.splitlines()) == 1 + len(INVALID_LINES) + 1
    rows = json.loads(invoked("list", dataset, "--json").stdout)
    assert set(rows[0]) == {
        "key", "job_id", "reason", "hint", "position", "sha256", "size", "original",
    }  # fmt: skip
    assert json.loads(invoked("list", dataset, "--job", "other", "--json").stdout) == []
    assert json.loads(invoked("list", dataset, "--job", "laws", "--json").stdout) == rows
    shown = json.loads(invoked("show", rows[0]["key"], dataset, "--json").stdout)
    assert shown == rows[0]
    raw = invoked("show", rows[0]["key"], dataset, "--raw").stdout_bytes
    assert raw.decode("utf-8", "backslashreplace") == rows[0]["original"]


async def test_a_dataset_on_s3(tmp_path: Path, seaweed: S3, run: LocalRun) -> None:
    settings = Settings(
        s3_bucket=seaweed.bucket,
        aws_endpoint_url_s3=seaweed.endpoint,
        aws_access_key_id=seaweed.access_key,
        aws_secret_access_key=seaweed.secret_key,
    )
    async with open_s3(s3_options(settings)) as client:
        store = S3Store(client, seaweed.bucket, f"{tmp_path.name}/laws/laws")
        for path in Path(run.dataset).rglob("*"):
            if path.is_file():
                await store.create(path.relative_to(run.dataset).as_posix(), path)
    uri = f"s3://{seaweed.bucket}/{tmp_path.name}/laws/laws"
    local = await dead_letters_at(run.dataset, settings, originals=True)
    assert await dead_letters_at(uri, settings, originals=True) == local
    with pytest.raises(UsageError, match="is no dataset") as refused:
        await dead_letters_at(f"s3://{seaweed.bucket}/{tmp_path.name}", settings, originals=False)
    assert uri in (refused.value.hint or "")


async def test_only_segments_with_a_record_count(copied: Path) -> None:
    dataset = copied
    whole = (await dead_letters_at(str(dataset), Settings(), originals=False)).by_key
    one = min((dataset / "dead-letters").iterdir())
    # What a process has left that was killed before it appended the record.
    (dataset / "dead-letters" / "part-00000-000000999999.jsonl").write_bytes(one.read_bytes())
    (dataset / "dead-letters" / "notes.txt").write_text("not ours")
    assert (await dead_letters_at(str(dataset), Settings(), originals=False)).by_key == whole


def test_dead_letters_that_are_counted_and_not_stored_are_named(copied: Path) -> None:
    dataset = copied
    for path in (dataset / "dead-letters").iterdir():
        path.unlink()
    listed = invoked("list", str(dataset))
    assert listed.exit_code == 0
    assert f"{len(INVALID_LINES) + 1} more are counted in manifest.json" in listed.stderr


@pytest.mark.parametrize("line", [b"{", b"[]\n", b'{"sequence": 1}\n', b"{}\n"])
async def test_a_damaged_line_is_an_error_without_a_traceback(copied: Path, line: bytes) -> None:
    dataset = copied
    one = min((dataset / "dead-letters").iterdir())
    one.write_bytes(one.read_bytes() + line)
    with pytest.raises(JobFailed, match="holds a line that is no dead letter") as failed:
        await dead_letters_at(str(dataset), Settings(), originals=False)
    assert failed.value.code == "dataset_damaged"


async def test_an_unfinished_dataset_has_those_of_its_finished_segments(copied: Path) -> None:
    dataset = copied
    for name in ("manifest.json", "_SUCCESS", "README.md"):
        (dataset / name).unlink()
    found = await dead_letters_at(str(dataset), Settings(), originals=False)
    assert (len(found.by_key), found.missing <= 0) == (len(INVALID_LINES) + 1, True)
    hints = {one.reason: one.hint for one in found.by_key.values()}
    assert hints["missing_id"].endswith(": the document has no id")


async def test_hints_name_the_fields_of_the_job(tmp_path: Path) -> None:
    lines = [{"title": "no text"}, {"key": 1, "body": 2}, {"key": "a", "body": "text"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fields = {"id": "key", "text": "body"}
    body = {
        "job_id": "laws",
        "name": "laws",
        "source": {"type": "files", "paths": [str(tmp_path / "in.jsonl")], "fields": fields},
        "quality": {"max_dead_letter_ratio": 1},
    }
    result = await run_job(parse_job(orjson.dumps(body)), str(tmp_path), Settings(), lambda _: None)
    found = await dead_letters_at(result.dataset, Settings(), originals=False)
    expected = {one.key: one.hint for one in result.dead_letters}
    assert {key: one.hint for key, one in found.by_key.items()} == expected
    assert sorted(one.hint.partition(": ")[2] for one in found.by_key.values()) == [
        "body must be text",
        "the document has no key",
    ]


def test_every_reason_has_a_sentence_without_a_template() -> None:
    for reason in DeadLetterReason:
        assert "{" not in meaning(reason)
    assert meaning("of_a_later_version") == "of_a_later_version"


def test_a_folder_without_a_dataset_is_a_usage_error(tmp_path: Path) -> None:
    refused = invoked("list", str(tmp_path))
    assert "is no dataset" in str(refused.exception)
