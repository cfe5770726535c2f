"""What `doctor` prints for administrators: ACLs, topics, places of personal data."""

import json
import os
import subprocess
import sys
from pathlib import Path

from shardline.services.data_inventory import DATA_LOCATIONS
from shardline.services.kafka_admin import ROLES, acl_commands, acls_json, topic_commands
from shardline_common.ports.broker import TopicSpec
from shardline_producer.topics import system_topics
from tests.make import sample_job

DOCS = Path(__file__).parent.parent.parent / "docs"
ADMIN = '--bootstrap-server "$KAFKA" --command-config admin.properties'


def test_a_command_for_each_right() -> None:
    lines = acl_commands("team.")
    assert [line.removeprefix("# ") for line in lines if line.startswith("#")] == list(ROLES)
    assert (
        f"kafka-acls.sh {ADMIN} --add --allow-principal User:shardline-worker --operation Read "
        "--resource-pattern-type prefixed --group team.dataset.workers."
    ) in lines
    commands = [line for line in lines if not line.startswith("#")]
    assert len(commands) == sum(len(found) for found in acls_json("team.").values())
    assert all(" team.dataset." in command for command in commands)
    assert not any("--cluster" in command or "--operation All" in command for command in commands)


def test_a_command_for_each_topic() -> None:
    lines = topic_commands([TopicSpec("t", 3, {"b": "1,2", "a": "x y"})], "team.", 3)
    assert lines == [
        (
            f"kafka-topics.sh {ADMIN} --create --if-not-exists --topic team.t --partitions 3 "
            "--replication-factor 3 --config 'a=x y' --config b=1,2"
        )
    ]
    assert all("--replication-factor" not in line for line in topic_commands(system_topics(8), "", -1))


def printed(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "shardline", "doctor", *arguments]
    env = os.environ | {"KAFKA_TOPIC_PREFIX": "team.", "PYTHONPATH": str(DOCS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_prints_need_no_service(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(sample_job("laws", partitions=3)))
    assert json.loads(printed(tmp_path, "--print-acls", "--json")) == acls_json("team.")
    topics = json.loads(printed(tmp_path, "--print-topics", "job.json", "--json"))
    assert [topic["name"] for topic in topics][-1] == "team.dataset.job.laws.1"
    assert (topics[-1]["partitions"], topics[-1]["config"]["retention.ms"]) == (3, "-1")
    (tmp_path / "job.json").write_text(json.dumps(sample_job("laws-${window}")))
    topics = json.loads(printed(tmp_path, "--print-topics", "job.json", "--window", "2026-11-25", "--json"))
    assert topics[-1]["name"] == "team.dataset.job.laws-2026-11-25.1"
    places = json.loads(printed(tmp_path, "--data", "--json"))
    assert [place["place"] for place in places] == [place.place for place in DATA_LOCATIONS]


def test_the_page_lists_each_place() -> None:
    text = (DOCS / "data-protection.md").read_text(encoding="utf-8")
    for one in DATA_LOCATIONS:
        assert f"| {one.place} | {one.holds} | {one.kept} | {one.deleted} |\n" in text
