"""What a job may name through the gateway: no local files, S3 only where a setting lists it."""

from pathlib import Path
from typing import Any

import pytest

from shardline.gateway import dataset_routes
from shardline.gateway.job_policy import JobPolicy
from shardline.gateway.problems import Problem
from shardline.gateway.users import User
from shardline_common.errors import UsageError
from shardline_common.job.spec import JobSpec, parse_job
from shardline_common.settings.load import Settings
from tests.gateway.inprocess import USERS, gateway_in_memory
from tests.gateway.system import body
from tests.make import job

SETTINGS = Settings(
    gateway_s3_sources="s3://laws/in/, s3://archive", s3_bucket="datasets", s3_prefix="sets/live"
)
KNOWN = [job(job_id="baurecht-1", name="Baurecht")]


def reading(*paths: str) -> JobSpec:
    return job(source={"type": "files", "paths": list(paths)})


def check(spec: JobSpec, settings: Settings = SETTINGS, user: User = USERS["erika"]) -> None:
    JobPolicy.of(settings).check(spec, user, lambda: KNOWN)


@pytest.mark.parametrize(
    "path",
    [
        "s3://laws/in/2026.jsonl",
        "s3://laws/in/*.jsonl",
        "s3://laws/in/20?6/[ab]*.jsonl",
        "s3://archive/anything.jsonl",
        "s3://archive/*",
        "s3://datasets/sets/live/baurecht/baurecht-1/data/train/*.jsonl",
    ],
)
def test_what_the_setting_lists_and_datasets_can_be_read(path: str) -> None:
    check(reading(path))


@pytest.mark.parametrize(
    "path",
    [
        # Local files, however they are written.
        "laws.jsonl", "/etc/passwd", "../x.jsonl", "./x", "~/x", "*", "file:///etc/passwd", "S3://laws/in/x",
        " s3://laws/in/x", "s3:/laws/in/x", "s3:laws/in/x", "\\\\server\\x", "C:\\x", "http://10.0.0.1/x",
        # Elsewhere in S3.
        "s3://other/x.jsonl", "s3://laws/x.jsonl", "s3://laws/in", "s3://laws/inner/x", "s3://laws/i*/x",
        "s3://laws/*", "s3://law*/in/x", "s3://laws/in/../secret/x", "s3://laws/in/./x", "s3://laws/in//x",
        "s3://laws", "s3://", "s3:///in/x", "s3://laws/in/a\nb", "s3://laws@evil/in/x", "s3://ARCHIVE/x",
        "s3://archive.evil/x", "s3://laws/%69n/x",
        # Beside the rows of datasets.
        "s3://datasets/x.jsonl", "s3://datasets/sets/live/_jobs/baurecht-1.json", "s3://datasets/*",
        "s3://datasets/sets/live/_exports/baurecht/baurecht-1/x.csv", "s3://datasets/sets/*/x/y/data/train/z",
        "s3://datasets/sets/live/baurecht/baurecht-1/rejected/x", "s3://datasets/sets/live/*/*/data/train/*",
        "s3://datasets/sets/live/baurecht/*/data/train/*", "s3://datasets/sets/live/baurecht/baurecht-1/*/*/*",
        "s3://datasets/sets/live/baurecht/baurecht-1/dead-letters/*", "s3://datasets/sets/live/[_]jobs/*",
        "s3://datasets/sets/live/?jobs/*", "s3://datasets/sets/live/unknown/unknown-1/data/train/x.jsonl",
        "s3://datasets/sets/live/baurecht/baurecht-1/manifest.json",
    ],
)  # fmt: skip
def test_everything_else_is_refused(path: str) -> None:
    for paths in ([path], ["s3://archive/x.jsonl", path]):
        with pytest.raises(Problem) as refused:
            check(reading(*paths))
        assert refused.value.status_code == 403
        assert "shardline submit" in str(refused.value.detail)


def test_a_setting_that_lists_the_bucket_of_datasets_opens_no_bookkeeping() -> None:
    open_bucket = Settings(gateway_s3_sources="s3://datasets", s3_bucket="datasets")
    check(reading("s3://datasets/in/laws.jsonl"), open_bucket)
    check(reading("s3://datasets/in/*.jsonl"), open_bucket)
    for path in ("_jobs/x.json", "*/x.json", "_exports/a/b/c.csv", "baurecht/baurecht-1/_state/plan.json"):
        with pytest.raises(Problem):
            check(reading(f"s3://datasets/{path}"), open_bucket)


def test_nothing_in_s3_is_read_by_default() -> None:
    for path in ("s3://laws/in/x.jsonl", "s3://archive/x.jsonl", "s3://datasets/x.jsonl"):
        with pytest.raises(Problem, match="GATEWAY_S3_SOURCES"):
            check(reading(path), Settings())


def test_a_dataset_is_read_only_by_those_who_may_read_it() -> None:
    spec = reading("s3://datasets/sets/live/baurecht/baurecht-1/data/train/x.jsonl")
    for user in USERS.values():
        check(spec, user=user)
    with pytest.raises(Problem, match="may not read"):
        check(spec, user=User("user-9", "vera@example.org", frozenset({"viewer"})))


def against(*addresses: str) -> JobSpec:
    return job(source={"type": "uds3"}, dedup={"exact": True, "against": list(addresses)})


@pytest.mark.parametrize(
    "address",
    [
        "s3://datasets/sets/live/baurecht/baurecht-1",
        "s3://datasets/sets/live/baurecht/baurecht-1/",
        "s3://laws/in/old/old-1",
        "s3://archive/old/old-1/",
    ],
)
def test_texts_are_compared_with_datasets_that_the_user_may_read(address: str) -> None:
    check(against(address))
    viewer = User("user-9", "vera@example.org", frozenset({"viewer"}))
    if "baurecht-1" in address:
        with pytest.raises(Problem, match=r"which .* may not read"):
            check(against(address), user=viewer)


@pytest.mark.parametrize(
    "address",
    [
        "out/laws/laws-1", "/data/laws/laws-1", "file:///data/x", "s3://", "s3://other/laws/laws-1",
        "s3://laws/in/../secret/a/b", "s3://laws/in/*/x", "s3://laws/other/a", "s3://laws/inner/a/b",
        "s3://datasets/sets/live/baurecht", "s3://datasets/sets/live/unknown/unknown-1",
        "s3://datasets/sets/live/_jobs", "s3://datasets/sets/live/_staged/baurecht/baurecht-1",
        "s3://datasets/sets/live/baurecht/baurecht-1/data", "s3://datasets/sets/live", "s3://archive//a",
    ],
)  # fmt: skip
def test_texts_are_compared_with_no_other_place(address: str) -> None:
    for addresses in ([address], ["s3://archive/old/old-1", address]):
        with pytest.raises(Problem) as refused:
            check(against(*addresses))
        assert refused.value.status_code == 403


def test_the_fields_of_assembled_datasets_can_be_set() -> None:
    check(job(source={"type": "uds3"}, sample={"rows": 3}, dedup={"near": True}, output={"order": "source"}))


@pytest.mark.parametrize("source", [{"type": "uds3"}, {"type": "themis"}])
def test_the_stores_of_the_settings_can_be_read(source: dict[str, Any]) -> None:
    check(job(source=source), Settings())


def test_a_field_that_nobody_has_decided_about_is_refused() -> None:
    class LaterSpec(JobSpec):
        against: str | None = None

    later = LaterSpec.model_validate(job(source={"type": "uds3"}).model_dump() | {"against": "s3://other/x"})
    with pytest.raises(Problem, match="'against'"):
        check(later)


@pytest.mark.parametrize(
    "entry", ["laws", "s3://", "s3://a/*", "s3://a/../b", "/srv", "s3://laws/in//x", "*"]
)
def test_a_wrong_entry_is_refused_at_the_start(entry: str) -> None:
    with pytest.raises(UsageError, match="GATEWAY_S3_SOURCES"):
        JobPolicy.of(Settings(gateway_s3_sources=f"s3://good, {entry}"))


@pytest.mark.parametrize("path", ["/api/datasets", "/api/datasets/stream"])
async def test_every_call_that_submits_a_job_checks_it(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def local(*_: object) -> JobSpec:
        return parse_job(reading("laws.jsonl").body())

    monkeypatch.setattr(dataset_routes, "job_from_request", local)
    async with gateway_in_memory(tmp_path) as gateway:
        refused = await gateway.call("POST", path, "erika", body=body())
        assert refused.status == 403
        assert "local files" in refused.json()["detail"]
        assert gateway.audit()[-1]["outcome"] == "403"
        assert await gateway.messages() == []
