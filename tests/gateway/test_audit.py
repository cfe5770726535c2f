"""The audit log: who did what, in a chain that shows a line that was removed, added or changed."""

import fcntl
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from typer.testing import CliRunner

from shardline.cli.app import app
from shardline.gateway import audit_file
from shardline.gateway.audit import AuditLog
from shardline.gateway.audit_chain import Head, line_hash
from shardline.gateway.audit_file import AuditFile, AuditLimits, closed_files, head_path
from shardline.gateway.audit_reader import AuditReport, parse_moment, read_audit_log
from shardline.gateway.users import User
from shardline_common.errors import UsageError
from shardline_common.job.state import State
from shardline_common.runtime.clock import SYSTEM_CLOCK
from tests.gateway.inprocess import Gateway, gateway_in_memory
from tests.gateway.system import body
from tests.make import job

SMALL = AuditLimits(bytes=2000, files=0)


def written(path: Path, count: int, limits: AuditLimits | None = None) -> list[bytes]:
    """Write a log of `count` lines, and return the lines of its last file."""
    file = AuditFile(path, limits)
    file.check_writable()
    for number in range(count):
        file.append({"at": "2026-11-29T08:00:00.000Z", "action": "create", "number": number})
    return path.read_bytes().splitlines()


def report(path: Path) -> AuditReport:
    return read_audit_log(path, lambda _: True)


def rewrite(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def test_a_log_that_nobody_touched_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 30)
    found = report(path)
    assert (found.problems, found.notes) == ([], [])
    assert [line["number"] for line in found.lines] == list(range(30))
    assert found.head.seq == 30


@pytest.mark.parametrize("index", [0, 1, 5, 8, 9])
@pytest.mark.parametrize("closed", [False, True])
def test_a_removed_line_is_noticed(tmp_path: Path, index: int, closed: bool) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 40, SMALL if closed else None)
    target = closed_files(path)[1] if closed else path
    lines = target.read_bytes().splitlines()
    index = index % len(lines) if index < 8 else len(lines) - 10 + index
    rewrite(target, lines[:index] + lines[index + 1 :])
    assert any("missing" in problem for problem in report(path).problems)
    # It stays noticed when the gateway goes on.
    AuditFile(path).append({"action": "create"})
    assert any("missing" in problem for problem in report(path).problems)


def _changed(lines: list[bytes], index: int) -> list[bytes]:
    return [*lines[:index], lines[index].replace(b'"create"', b'"delete"'), *lines[index + 1 :]]


def _swapped(lines: list[bytes], index: int) -> list[bytes]:
    other = index - 1 if index else 1
    lines[index], lines[other] = lines[other], lines[index]
    return lines


def _added(lines: list[bytes], index: int) -> list[bytes]:
    return [*lines[: index + 1], b'{"action":"create"}', *lines[index + 1 :]]


def _doubled(lines: list[bytes], index: int) -> list[bytes]:
    return [*lines[: index + 1], lines[index], *lines[index + 1 :]]


def _forged_end(lines: list[bytes], _: int) -> list[bytes]:
    head = Head(len(lines), line_hash(lines[-1]))
    first = head.chained({"action": "create"})
    return [*lines, first, Head(head.seq + 1, line_hash(first)).chained({"action": "create"})]


@pytest.mark.parametrize("change", [_changed, _swapped, _added, _doubled, _forged_end])
@pytest.mark.parametrize("index", [0, 4, 9])
def test_another_change_is_noticed(
    tmp_path: Path, change: Callable[[list[bytes], int], list[bytes]], index: int
) -> None:
    path = tmp_path / "audit.jsonl"
    rewrite(path, change(written(path, 10), index))
    assert report(path).problems


def test_a_missing_file_or_head_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 40, SMALL)
    files = closed_files(path)
    assert len(files) > 2
    content = files[1].read_bytes()
    files[1].unlink()
    assert report(path).problems
    files[1].write_bytes(content)
    assert not report(path).problems
    oldest = files[0].read_bytes()
    files[0].unlink()
    assert "missing at the start" in report(path).problems[0]
    files[0].write_bytes(oldest)
    head_path(path).unlink()
    assert "head" in report(path).problems[0]


@pytest.mark.parametrize("forged", [1, 2, 5])
def test_a_line_that_was_added_at_the_end_stays_noticed(tmp_path: Path, forged: int) -> None:
    path = tmp_path / "audit.jsonl"
    lines = written(path, 5)
    for _ in range(forged):
        lines.append(Head(len(lines), line_hash(lines[-1])).chained({"action": "create"}))
    rewrite(path, lines)
    for _ in range(3):
        found = report(path)
        said = found.notes if forged == 1 else found.problems
        named = "line 6 was" if forged == 1 else f"lines 6 to {5 + forged} are"
        assert [sentence for sentence in said if sentence.startswith(f"{named} not in the head")]
        # Also when the gateway goes on.
        AuditFile(path).append({"action": "create"})
    assert report(path).lines[5 + forged]["unconfirmed"] == forged


def test_a_head_that_was_removed_stays_noticed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    rewrite(path, written(path, 5)[:3])
    head_path(path).unlink()
    AuditFile(path).append({"action": "create"})
    assert report(path).problems == ["lines 1 to 3 are not in the head: they were added"]


def test_lines_before_the_oldest_file_that_is_kept_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 100, AuditLimits(bytes=2000, files=2))
    oldest = closed_files(path)[0]
    rewrite(oldest, [b'{"action":"purge","user":"erika"}', *oldest.read_bytes().splitlines()])
    assert any("1 lines before line" in problem for problem in report(path).problems)


def test_old_files_are_removed_and_the_rest_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 100, AuditLimits(bytes=2000, files=2))
    assert len(closed_files(path)) == 2
    assert all(one.stat().st_size <= 2000 for one in [*closed_files(path), path])
    found = report(path)
    assert found.problems == []
    assert "removed by age" in found.notes[0]
    assert found.lines[-1]["number"] == 99
    assert any(line["action"] == "remove_audit_file" for line in found.lines)


def test_gateways_of_one_log_write_one_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "_LOCK_SECONDS", 60.0)
    path = tmp_path / "audit.jsonl"

    def write(writer: int) -> None:
        file = AuditFile(path, SMALL)
        for number in range(40):
            file.append({"writer": writer, "number": number})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    found = report(path)
    assert found.problems == []
    assert len(found.lines) == 160
    for writer in range(4):
        assert [line["number"] for line in found.lines if line["writer"] == writer] == list(range(40))


def test_a_process_that_was_killed_breaks_no_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 5)
    head = head_path(path).read_bytes()
    written(path, 1)
    # Between the two writes: the head is one line behind.
    head_path(path).write_bytes(head)
    assert report(path).problems == []
    AuditFile(path).append({"number": 7})
    assert (report(path).problems, report(path).head.seq) == ([], 7)
    # In the middle of a line.
    with path.open("ab") as file:
        file.write(b'{"at":"2026')
    assert report(path).problems == []
    AuditFile(path).append({"number": 8})
    found = report(path)
    assert (found.problems, found.head.seq, found.lines[-1]["number"]) == ([], 8, 8)


class _FullDisk:
    """A file whose disk takes 5 bytes more."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        written: int = self._file.write(data[:5])
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    before = written(path, 3)
    with path.open("ab", buffering=0) as file, pytest.raises(OSError, match="5 of"):
        audit_file._write_all(_FullDisk(file), b'{"number":1}\n')  # type: ignore[arg-type]
    assert path.read_bytes().splitlines() == before


def test_the_lines_of_an_earlier_version_stay(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    rewrite(path, [b'{"action":"old"}', b'{"action":"older"}'])
    lines = written(path, 3)
    found = report(path)
    assert found.problems == []
    assert [line["action"] for line in found.lines] == ["old", "older", "create", "create", "create"]
    assert found.notes == ["2 lines of an earlier version are not chained"]
    rewrite(path, [lines[0], *lines[2:]])
    assert report(path).problems


def test_a_log_that_was_cut_is_named_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit.jsonl"
    rewrite(path, written(path, 5)[:3])
    AuditLog(path, SYSTEM_CLOCK).check_writable()
    assert "lines 4 to 5 are missing" in caplog.text


def test_a_stopped_process_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, 1)
    monkeypatch.setattr(audit_file, "_LOCK_SECONDS", 0.01)
    with head_path(path).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="lock of the audit log"):
            AuditFile(path).append({"number": 2})
    AuditFile(path).append({"number": 2})
    assert report(path).problems == []


def test_a_pipe_gets_lines_without_a_chain(tmp_path: Path) -> None:
    # As with GATEWAY_AUDIT_LOG=/dev/stdout in a container.
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        file = AuditFile(path)
        assert file.check_writable() is None
        file.append({"number": 1})
        assert os.read(reader, 1000) == b'{"number":1}\n'
        assert not head_path(path).exists()
    finally:
        os.close(reader)


def test_a_link_leads_to_one_log_and_foreign_files_are_left_alone(tmp_path: Path) -> None:
    path, link = tmp_path / "audit.jsonl", tmp_path / "current"
    link.symlink_to(path)
    (tmp_path / "audit.jsonl.1").write_text("logrotate's\n")
    (tmp_path / "audit.jsonl.old").write_text("mine\n")
    limits = AuditLimits(bytes=2000, files=1)
    for number in range(60):
        AuditFile(link if number % 2 else path, limits).append({"number": number})
    assert len(closed_files(path)) == 1
    assert report(link).problems == report(path).problems == []
    assert (tmp_path / "audit.jsonl.1").exists()
    assert (tmp_path / "audit.jsonl.old").exists()
    assert not head_path(link).exists()


def test_a_log_of_any_content_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'\xff\n\n[1]\n{"seq":-1}\n{"seq":true,"previous":"x"}\n{"seq":1e30,"previous":1}\n')
    assert report(path).lines == [
        {"seq": -1}, {"seq": True, "previous": "x"}, {"seq": 1e30, "previous": 1},
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no audit log"):
        report(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match="cannot be read"):
        report(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", datetime(2026, 11, 28, 8, tzinfo=UTC)),
        ("2w", datetime(2026, 11, 15, 8, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T10:00:00+02:00", datetime(2026, 11, 1, 8, tzinfo=UTC)),
    ],
)
def test_a_moment_is_an_age_a_day_or_a_time(text: str, expected: datetime) -> None:
    assert parse_moment(text, datetime(2026, 11, 29, 8, tzinfo=UTC)) == expected


@pytest.mark.parametrize("text", ["", "soon", "-1h", "999999w", "24", "2026-13-01"])
def test_another_moment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no time"):
        parse_moment(text, datetime(2026, 11, 29, 8, tzinfo=UTC))


def test_the_command_shows_the_lines_and_checks_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, SYSTEM_CLOCK)
    erika = User("user-1", "erika@example.org", frozenset({"trainer", "offline_access"}))
    old = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    AuditFile(path).append({"at": old, "user_id": "user-1", "action": "purge", "dataset": "laws"})
    log.record(erika, "create", "200", dataset="laws")
    log.record(erika, "purge", "403", dataset="laws")
    log.record(None, "GET /api/datasets", "401", dataset=None)

    def run(*options: str) -> tuple[int, Any]:
        found = CliRunner().invoke(app, ["audit", "--file", str(path), "--json", *options])
        return found.exit_code, json.loads(found.stdout)

    code, found = run("--since", "24h")
    assert (code, found["ok"], len(found["lines"])) == (0, True, 3)
    line = found["lines"][0]
    assert {name: line[name] for name in ("user_id", "roles", "action", "dataset", "outcome")} == {
        "user_id": "user-1", "roles": ["trainer"], "action": "create", "dataset": "laws", "outcome": "200",
    }  # fmt: skip
    assert len(run("--user", "erika@example.org")[1]["lines"]) == 2
    assert len(run("--user", "user-1", "--action", "purge")[1]["lines"]) == 2
    assert len(run("--until", "24h")[1]["lines"]) == 1
    assert len(run("--outcome", "403", "--dataset", "laws")[1]["lines"]) == 1
    shown = CliRunner().invoke(app, ["audit", "--file", str(path), "--since", "24h"])
    assert shown.exit_code == 0
    assert "erika@example.org" in shown.stdout
    rewrite(path, path.read_bytes().splitlines()[:-1])
    code, found = run("--since", "24h")
    assert (code, found["ok"]) == (1, False)
    assert found["problems"] == ["line 4 is missing at the end"]


async def test_the_log_and_the_metrics_say_who_did_what(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        made = await gateway.call("POST", "/api/datasets", "erika", body=body())
        dataset_id = made.json()["dataset_id"]
        await gateway.call("POST", f"/api/datasets/{dataset_id}/cancel", "otto")
        await gateway.call("GET", f"/api/datasets/{dataset_id}/files", "ina")
        await gateway.call("GET", f"/api/datasets/{dataset_id}")
        await gateway.call("GET", f"/jobs/{dataset_id}", "anna", headers={"accept": "text/html"})
        lines = [
            (
                line["user_id"],
                line["roles"],
                line["action"].partition(" ")[0],
                line["dataset"],
                line["outcome"],
            )
            for line in gateway.audit()
        ]
        assert lines == [
            ("user-1", ["trainer"], "create", dataset_id, "200"),
            ("user-2", ["trainer"], "cancel", dataset_id, "403"),
            ("user-3", ["analyst"], "GET", dataset_id, "403"),
            (None, [], "GET", dataset_id, "401"),
            ("user-4", ["admin"], "view", dataset_id, "200"),
        ]
        metrics = generate_latest(gateway.context.metrics.registry).decode()
        for labels in (
            'action="create",outcome="200",role="trainer"',
            'action="cancel",outcome="403",role="trainer"',
            'action="request",outcome="403",role="analyst"',
            'action="request",outcome="401",role="none"',
        ):
            assert f"shardline_gateway_actions_total{{{labels}}} 1.0" in metrics
        assert "user-1" not in metrics
        assert report(gateway.audit_path).problems == []


async def completed(gateway: Gateway) -> str:
    """Put a dataset of one file into the store, and return the link to it that erika gets."""
    spec = job(job_id="done")
    manifest = {"shards": [], "totals": {"rows": 0, "bytes": 0}, "rejected": {}, "dead_letters": {}}
    for name, content in (("manifest.json", json.dumps(manifest)), ("README.md", "card")):
        await gateway.store.create(f"test/done/{name}", content.encode())
    await gateway.accepted(spec, State.COMPLETED)
    listed = await gateway.call("GET", "/api/datasets/done/files", "erika")
    assert listed.status == 200, listed.text
    links = {one["file"]: one["download_url"] for one in listed.json()["files"]}
    return str(links["README.md"])


async def test_a_download_by_a_link_names_whose_link_it_was(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        link = await completed(gateway)
        assert (await gateway.call("GET", link)).body == b"card"
        last = gateway.audit()[-1]
        assert (last["user_id"], last["action"], last["by"]) == ("user-1", "download", "link")
        # The name is part of what is signed.
        for forged in (link.replace("user=user-1", "user=user-2"), link.replace("&user=user-1", "")):
            assert (await gateway.call("GET", forged)).status == 403
        assert gateway.audit()[-1]["outcome"] == "403"
        await gateway.call("GET", "/api/datasets/done/files/README.md", "otto")
        last = gateway.audit()[-1]
        assert (last["user_id"], last["by"]) == ("user-2", "token")
