"""The AsyncAPI description is valid for AsyncAPI's own parser, and matches what the code sends."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from deploy.dev.service import ServiceError, cached, run_command
from shardline_common.dataset.events import Event
from shardline_common.dataset.stage_events import Counts, Stage, StageEvent, stage_message
from shardline_common.job.dead_letters import document_dead_letter, message_dead_letter
from shardline_common.job.messages import DeadLetter
from shardline_common.job.names import attempt_topic
from shardline_common.job.spec import Request
from shardline_common.job.state import JobState, PartitionState, State
from shardline_common.ports.broker import Record
from shardline_producer.topics import system_topics
from tests.docs.blocks import DOCS
from tests.make import job
from tools.asyncapi import asyncapi, schemas
from tools.schema_pages import JOB_PARTS

HERE = Path(__file__).parent / "asyncapi"
DEAD = DeadLetter("too_large", "the row is large", "00" * 32, 5, b"{\xff}")


def parser_packages() -> Path:
    """Return the folder of AsyncAPI's parser from npm, installed once."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("AsyncAPI's parser needs Node.js with npm: apt-get install nodejs npm", pytrace=False)
    lock = HERE / "package-lock.json"

    def fill(folder: Path) -> None:
        for name in ("package.json", lock.name):
            shutil.copy(HERE / name, folder)
        run_command([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", f"--prefix={folder}"])

    try:
        return cached("asyncapi-packages", lock.read_bytes(), fill)
    except ServiceError as error:
        pytest.fail(str(error), pytrace=False)


def faults(file: Path) -> str:
    """Return the faults that the parser finds in a description."""
    command = ["node", str(HERE / "check.mjs"), str(parser_packages()), str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_parser_accepts_the_description_and_refuses_a_broken_one(tmp_path: Path) -> None:
    assert faults(DOCS / "asyncapi.json") == ""
    broken = json.loads((DOCS / "asyncapi.json").read_text())
    broken["operations"]["sendJobs"]["channel"]["$ref"] = "#/channels/nowhere"
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    assert "nowhere" in faults(tmp_path / "broken.json")


def valid(name: str, value: bytes | None) -> None:
    """Check that a message fits its schema, and that it would not without one of its required fields."""
    described = asyncapi()
    schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
    found = json.loads(value or b"")
    jsonschema.validate(found, schema)
    for field in described["components"]["schemas"][name]["required"]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: item for key, item in found.items() if key != field}, schema)
    assert set(found) <= set(described["components"]["schemas"][name]["properties"])


def test_sent_messages_match_their_schemas() -> None:
    spec = job(query={"filters": {"pages": {"gte": 3}}}, labels={"a": "b"})
    valid("JobSpec", spec.body())
    valid("Request", Request(job_id="a", action="cancel").body())
    state = JobState(spec, State.RUNNING, columns={"a": "string"}, cursor=("file", 1, 2))
    state.partitions = [PartitionState(3, 4, 5, 1, ("file", 1, 1)), PartitionState()]
    valid("JobState", state.encode())
    valid("Event", orjson.dumps(Event("a", 1, 0, 5, 3, 10, "2026-11-26T00:00:00Z", {"empty": 2})))
    staged = StageEvent("a", 1, Stage.ASSEMBLING, 3, 64, "2026-11-26T00:00:00Z", Counts(3, 10, {"empty": 2}))
    valid("StageEvent", staged.encode())
    valid("Event", stage_message(staged).value)
    valid("DeadLetterRecord", document_dead_letter("a", 0, 1, b'["file",1]', DEAD, keep_original=True).value)
    valid("DeadLetterRecord", document_dead_letter("a", 0, 1, b'["file",1]', DEAD, keep_original=False).value)
    valid(
        "DeadLetterRecord",
        message_dead_letter(Record(0, 7, None, b"{"), "invalid", "the job is not valid JSON").value,
    )


def test_the_topics_equal_those_of_the_code() -> None:
    described = {channel["address"] for channel in asyncapi()["channels"].values()}
    assert described == {topic.name for topic in system_topics(1)} | {"dataset.job.{job_id}.{attempt}"}
    assert attempt_topic("{job_id}", 1) == "dataset.job.{job_id}.1"


def refers_to(schema: Any) -> set[str]:
    """Return the names of the schemas that a schema refers to."""
    if isinstance(schema, dict):
        own = {str(schema["$ref"]).rpartition("/")[2]} if "$ref" in schema else set()
        return own.union(*map(refers_to, schema.values()))
    return set[str]().union(*map(refers_to, schema)) if isinstance(schema, list) else set()


def test_the_job_page_has_every_schema() -> None:
    described = schemas()
    assert set(JOB_PARTS) <= set(described)
    assert set().union(*(refers_to(described[name]) for name in JOB_PARTS)) <= set(JOB_PARTS)
