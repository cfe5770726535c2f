"""docs/recurring.md: its commands, those of the CronJob and of the systemd service, over PostgreSQL."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from shardline.services.date_range import parse_date_range
from shardline.services.job_template import fill_job
from shardline_common.job.spec import parse_job
from tests.databases import Database
from tests.e2e.system import multiset, running_system
from tests.services import S3
from tests.source_items import item_ids
from tests.uds3_data import insert, make_uds3
from tests.uds3_reading import scan_items

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "recurring.md").read_text(encoding="utf-8")
SYSTEMD = ROOT / "deploy" / "systemd"
CRONJOB = ROOT / "deploy" / "kubernetes" / "cronjob.yaml"
SHARDLINE = Path(sys.executable).parent / "shardline"
TIMES = ("T00:00:00", "T09:30:00.120000", "T23:59:59.999999+00:00", " 12:00:00", "T23:59:59Z")


def blocks(kind: str) -> list[str]:
    """The page's blocks of a kind."""
    return list[str](re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def manifests() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(CRONJOB.read_text(encoding="utf-8"))}


async def fill(database: Database, days: set[date]) -> dict[str, Counter[str]]:
    """UDS3's tables with documents of these days; the ids by day."""
    await make_uds3(database)
    texts = [day.isoformat() + time for day in sorted(days) for time in TIMES]
    documents = [
        {
            "document_id": f"law-{text}",
            "created_at": text,
            "classification": "verwaltungsrecht",
            "content": f"§ 1 {text} " * 100,
        }
        for text in texts
    ]
    await insert(database, "documents", *documents)
    beside = [{"document_id": f"law-{text}", "title": text, "document_type": "Gesetz"} for text in texts]
    await insert(database, "documents_metadata", *beside)
    return {day.isoformat(): Counter(f"law-{day.isoformat()}{time}" for time in TIMES) for day in days}


class Shell:
    """Runs commands in a folder, with `shardline` on the path."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._env = env | {"PATH": f"{SHARDLINE.parent}{os.pathsep}{env['PATH']}", "NO_COLOR": "1"}

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout


def cronjob_command(folder: Path) -> str:
    """The CronJob's command, its ConfigMap mounted at the folder."""
    found = manifests()
    (folder / "laws.json").write_text(found["ConfigMap"]["data"]["laws.json"])
    container = found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    return shlex.join([*container["command"], *container["args"]]).replace("/jobs/", f"{folder}/")


def service_command() -> str:
    """The service's command, with its files in the working directory."""
    unit = (SYSTEMD / "shardline-export.service").read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    return str(command).replace("/opt/shardline/bin/", "").replace("/etc/shardline/", "")


@pytest.mark.timeout(600)
async def test_commands_of_the_page_export_each_day(
    tmp_path: Path, kafka: str, seaweed: S3, database: Database
) -> None:
    today = datetime.now(UTC).date()
    days = {today - timedelta(days=back) for back in range(-1, 6)} | {
        date(2026, 11, day) for day in (24, 25, 26)
    }
    by_day = await fill(database, days)
    laws, domain = blocks("json")
    (tmp_path / "laws.json").write_text(laws)
    (tmp_path / "domain.json").write_text(domain)
    async with running_system(tmp_path, kafka, seaweed, tmp_path, **database.env) as system:
        system.start("producer")
        system.start("worker")
        shell = Shell(tmp_path, system.env())
        said = "".join(map(shell.run, blocks("sh")))
        ids = re.findall(r"^laws-(\S+)$", said, re.MULTILINE)
        assert len(ids) == 5
        assert ids[1:3] == ["2026-11-25"] * 2
        assert said.count("sample  ") == 2
        for day in set(ids):
            spec = parse_job(fill_job(laws.encode(), parse_date_range(day, today), ()))
            view = await system.finished(spec.job_id)
            assert (view.state.state, view.state.attempt) == ("completed", 1), view.to_json()
            assert multiset(await system.rows(spec)) == by_day[day]
        # The CronJob's job is the page's: the same id and body, so that nothing is refused.
        jobs = tmp_path / "jobs"
        jobs.mkdir()
        again = shell.run(cronjob_command(jobs)).strip()
        assert again.removeprefix("laws-") in {str(today - timedelta(days=1)), str(today)}
        assert json.loads((jobs / "laws.json").read_text()) == json.loads(laws)
        assert not await system.client.dead_letters()
        # In one process and without Kafka: the same dataset.
        alone = Shell(
            tmp_path, system.env(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9", SHARDLINE_EXPORT_OUTPUT="out")
        )
        place = tmp_path / alone.run(service_command()).strip()
        own = json.loads((place / "manifest.json").read_text())
        spec = parse_job(
            fill_job(laws.encode(), parse_date_range(place.name.removeprefix("laws-"), today), ())
        )
        assert own["job"] == spec.model_dump(mode="json")
        assert own["digest"] == (await system.manifest(spec))["digest"]


async def test_a_date_range_selects_its_day_for_every_column_type(database: Database) -> None:
    columns = "at timestamptz, plain timestamp, day date, text_day text, text_time text"
    await database.execute(f"CREATE TABLE documents (document_id text PRIMARY KEY, content text, {columns})")
    for text in (
        "2026-11-24T23:59:59.999999",
        *(f"2026-11-25{time}" for time in TIMES),
        "2026-11-26T00:00:00",
    ):
        row = {"at": text, "plain": text, "day": text[:10], "text_day": text[:10], "text_time": text}
        await insert(database, "documents", {"document_id": text, "content": "§", **row})
    values = parse_date_range("2026-11-25", date(2026, 11, 26)).values
    for column in ("at", "plain", "day", "text_day", "text_time"):
        for end in ("to", "end"):
            bounds = {"gte": values["from"], "lte": values[end]}
            found = item_ids(await scan_items(database, filters={column: bounds}))
            assert found == sorted(f"2026-11-25{time}" for time in TIMES), (column, end)


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    names = ("shardline-export.service", "shardline-export.timer")
    for name in names:
        unit = (SYSTEMD / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(unit.replace("/opt/shardline/bin/shardline", str(SHARDLINE)))
    verify = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in names)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "shardline" in line]
    assert (done.returncode, ours) == (0, [])
    (when,) = re.findall(r"^OnCalendar=(.*)$", (tmp_path / names[1]).read_text(), re.MULTILINE)
    calendar = subprocess.run(
        ["systemd-analyze", "calendar", when], capture_output=True, text=True, check=True
    )
    assert "03:15:00 UTC" in calendar.stdout


def test_systemd_refuses_a_broken_unit(tmp_path: Path) -> None:
    unit = (SYSTEMD / "shardline-export.service").read_text(encoding="utf-8")
    (tmp_path / "broken.service").write_text(unit.replace("Type=oneshot", "Type=onceshot"))
    verify = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "broken.service")]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert "onceshot" in done.stderr


def test_the_cronjob_matches_the_schema_of_kubernetes() -> None:
    found = manifests()
    for one in found.values():
        kubernetes_validate.validate(one, "1.30", strict=True)
    found["CronJob"]["spec"]["timezone"] = found["CronJob"]["spec"].pop("timeZone")
    with pytest.raises(kubernetes_validate.ValidationError, match="timezone"):
        kubernetes_validate.validate(found["CronJob"], "1.30", strict=True)
