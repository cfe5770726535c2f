"""Paths that are URIs: file:// works, and other stores are refused with the command that copies."""

import shlex
from pathlib import Path

import pytest

import shardline
from shardline import errors
from shardline_producer.sources.files.path_schemes import foreign_address, plain_path
from tests.unit.test_odd_paths import ROW, planned

FETCHED = {
    "https://example.org/laws.jsonl": "fetch it first: curl -fLO https://example.org/laws.jsonl",
    "HTTP://example.org/a b.jsonl": "fetch it first: curl -fLO 'http://example.org/a b.jsonl'",
    "ftp://example.org/laws.jsonl": "fetch it first: curl -fLO ftp://example.org/laws.jsonl",
    "https://laws.s3.eu-central-1.amazonaws.com/in/2026.jsonl": "write s3://laws/in/2026.jsonl",
    "https://s3.eu-central-1.amazonaws.com/laws/in/2026.jsonl": "write s3://laws/in/2026.jsonl",
    "https://huggingface.co/datasets/owner/laws/resolve/main/data/train.jsonl": "fetch it first: "
    "hf download owner/laws data/train.jsonl --repo-type dataset --local-dir .",
    "https://huggingface.co/datasets/owner/laws": "fetch it first: "
    "hf download owner/laws --repo-type dataset --local-dir .",
    "hf://datasets/owner/laws/data/*.jsonl": "fetch it first: "
    "hf download owner/laws --include 'data/*.jsonl' --repo-type dataset --local-dir .",
    "hf://datasets/owner/laws@v2/train.jsonl": "fetch it first: "
    "hf download owner/laws train.jsonl --repo-type dataset --revision v2 --local-dir .",
    "hf://owner/model": "fetch it first: hf download owner/model --local-dir .",
    "gs://laws/in/*.jsonl": "fetch it first: gcloud storage cp 'gs://laws/in/*.jsonl' .",
    "gcs://laws/in/": "fetch it first: gcloud storage cp -r gs://laws/in/ .",
    "az://laws/in/*.jsonl": "fetch it first: "
    "az storage blob download-batch --source laws --pattern 'in/*.jsonl' --destination .",
    "abfss://laws@store.dfs.core.windows.net/a.jsonl": "fetch it first: az storage blob download-batch "
    "--account-name store --source laws --pattern a.jsonl --destination .",
    "sftp://machine/data/laws.jsonl": "fetch it first: scp machine:/data/laws.jsonl .",
    "hdfs://name/laws.jsonl": "fetch it first: hdfs dfs -get hdfs://name/laws.jsonl .",
    "S3://laws/in.jsonl": "write s3://laws/in.jsonl",
    "s3a://laws/in.jsonl": "write s3://laws/in.jsonl",
    "s3:/laws/in.jsonl": "write s3://laws/in.jsonl",
    "rsync://machine/laws.jsonl": "copy the files to this machine, and name the copies",
}


@pytest.mark.parametrize("path", FETCHED)
async def test_a_path_of_another_store_is_refused_with_the_command_that_fetches(
    tmp_path: Path, path: str
) -> None:
    with pytest.raises(errors.JobFailed, match=r"a path is a file of this machine, or s3://bucket") as failed:
        await planned(tmp_path, path)
    assert failed.value.code == "source_invalid"
    assert failed.value.hint == FETCHED[path]
    shlex.split(FETCHED[path])


@pytest.mark.parametrize(
    "path",
    [
        "https://user:hunter2@example.org/a.jsonl?token=hunter2#hunter2",
        "https://bucket.s3.amazonaws.com/a.jsonl?X-Amz-Signature=hunter2",
        "az://laws/a.jsonl?sig=hunter2",
        "postgresql://user:hunter2@db/laws",
        "sftp://user:hunter2@machine/a.jsonl",
    ],
)
async def test_a_refusal_holds_no_secret_of_an_address(tmp_path: Path, path: str) -> None:
    with pytest.raises(errors.JobFailed) as failed:
        await planned(tmp_path, path)
    assert "hunter2" not in f"{failed.value} {failed.value.hint}"
    with pytest.raises(errors.UsageError) as refused:
        await shardline.verify(path)
    assert "hunter2" not in f"{refused.value} {refused.value.hint}"


async def test_file_uris_are_local_paths(tmp_path: Path) -> None:
    (tmp_path / "a b.jsonl").write_bytes(ROW)
    whole = str(tmp_path / "a b.jsonl")
    for path in (
        f"file://{tmp_path}/a%20b.jsonl",
        f"file://localhost{tmp_path}/a b.jsonl",
        f"FILE:{tmp_path}/a%20b.jsonl",
        f"file://{tmp_path}/*.jsonl",
        f"file://{tmp_path}/a?b.jsonl",
    ):
        assert [file["path"] for file in await planned(tmp_path, path)] == [whole]
    with pytest.raises(errors.JobFailed, match="outside of"):
        await planned(tmp_path / "root", f"file://{tmp_path}/a%20b.jsonl", confined=True)


async def test_a_file_uri_of_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.JobFailed, match="names the machine 'data'") as failed:
        await planned(tmp_path, "file://data/laws.jsonl")
    assert failed.value.hint == "write file:///data/laws.jsonl, or the path alone"


@pytest.mark.parametrize(
    "path",
    ["laws.jsonl", "/data/laws.jsonl", "s3://laws/in.jsonl", "C:\\laws.jsonl", "a:b.jsonl", "s3", "file"],
)
def test_other_paths_stay_as_they_are(path: str) -> None:
    assert foreign_address(path) is None
    assert plain_path(path) == path


SENT = {
    "gs://laws/out": "write into a folder, and send it: gcloud storage cp -r FOLDER gs://laws/out",
    "hf://datasets/owner/laws": "write into a folder, and send it: "
    "hf upload owner/laws FOLDER --repo-type dataset",
    "az://laws/out": "write into a folder, and send it: az storage blob upload-batch --source FOLDER "
    "--destination laws --destination-path out",
    "https://minio.example/laws": "set AWS_ENDPOINT_URL_S3 to the address of an S3-compatible store, "
    "and write s3://bucket/prefix",
    "https://laws.s3.amazonaws.com/out": "write s3://laws/out",
    "s3:/laws/out": "write s3://laws/out",
    "webdav://machine/out": "write into a folder, and send it: with the tool of that store",
}


@pytest.mark.parametrize("address", SENT)
async def test_an_output_of_another_store_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    body = {"name": "laws", "source": {"type": "files", "paths": ["laws.jsonl"]}}
    with pytest.raises(errors.UsageError, match="neither a folder nor s3://bucket/prefix") as refused:
        await shardline.run(body, output=address)
    assert refused.value.hint == SENT[address]
    assert list(tmp_path.iterdir()) == []


async def test_output_and_dataset_may_be_file_uris(tmp_path: Path) -> None:
    (tmp_path / "laws.jsonl").write_bytes(ROW)
    body = {"name": "laws", "source": {"type": "files", "paths": [f"file://{tmp_path}/laws.jsonl"]}}
    body["quality"] = {"min_score": 0.0}
    result = await shardline.run(body, output=f"file://{tmp_path}/out")
    assert result.dataset == str(tmp_path / "out" / "laws" / result.job_id)
    assert (await shardline.verify(f"file://{result.dataset}", digest=result.digest)).ok
