"""The commands against a running system: output and exit codes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from shardline.services.sample import write_sample
from shardline_common.job.names import JOBS
from shardline_common.ports.broker import Message
from tests.e2e.system import System, running_system
from tests.services import S3


class Shell:
    """Runs commands of one system."""

    def __init__(self, system: System) -> None:
        self._system = system

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "shardline", *arguments]
        env = self._system.env(NO_COLOR="1", COLUMNS="200")
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, cwd=self._system.folder, check=False
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


def write_job(folder: Path, **changes: Any) -> str:
    body: dict[str, Any] = {
        "job_id": "typed",
        "name": "typed",
        "source": {"type": "files", "paths": ["sample.jsonl"]},
        "output": {"shard_bytes": 65_536},
    }
    (folder / "job.json").write_text(json.dumps(body | changes))
    return "job.json"


async def test_commands_over_the_life_of_a_job(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    write_sample(tmp_path / "sample.jsonl", 300, broken=True)
    async with running_system(tmp_path, kafka, seaweed, tmp_path) as system:
        shell = Shell(system)
        system.start("producer")
        system.start("worker")
        path = write_job(tmp_path)
        assert shell.run("submit", path, "--wait").stdout == "typed\n"
        assert shell.run("submit", path).stdout == "typed\n"
        status = shell.json("status", "typed")
        assert (status["state"], status["progress"]) == ("completed", 1.0)
        assert [job["job_id"] for job in shell.json("jobs")] == ["typed"]
        assert "completed" in shell.run("jobs").stdout
        assert "kept" in shell.run("status", "typed", "--watch").stdout
        where = f"s3://{seaweed.bucket}/{system.prefix}/typed/typed"
        report = shell.json("verify", where)
        assert (report["ok"], report["rows"]) == (True, status["rows"])
        letters = shell.json("dead-letters", "list", "--job", "typed")
        assert len(letters) == 10
        raw = shell.run("dead-letters", "show", letters[0]["key"])
        assert letters[0]["reason"] in raw.stdout
        assert "comes from its source" not in raw.stdout
        assert "only job messages" in shell.run("dead-letters", "requeue", letters[0]["key"], code=2).stderr
        checks = {check["name"]: check["ok"] for check in shell.json("doctor")["checks"]}
        up = {"kafka": True, "object store": True, "spool folder": True, "files": True}
        assert checks == up | dict.fromkeys(
            ("postgresql", "themisdb", "chromadb", "neo4j", "couchdb", "webhook")
        )
        assert "nothing to cancel" in shell.run("cancel", "typed", code=2).stderr
        assert "can be retried" in shell.run("retry", "typed", code=2).stderr
        shell.run("delete", "typed", "--yes")
        await system.until("typed", lambda view: view.state.state == "deleted")
        assert "typed is deleted" in shell.run("delete", "typed", "--yes", "--versions", "--wait").stderr
        assert shell.json("dead-letters", "list") == []
        assert not shell.json("verify", where, code=1)["ok"]
        # A producer would ignore the message: the id of a deleted job is never used again.
        assert "a job that was deleted" in shell.run("submit", path, "--wait", code=2).stderr
        assert "a job that was deleted" in shell.run("submit", path, code=2).stderr


async def test_user_errors_print_a_message_without_traceback(tmp_path: Path, kafka: str, seaweed: S3) -> None:
    write_sample(tmp_path / "sample.jsonl", 50)
    async with running_system(tmp_path, kafka, seaweed, tmp_path) as system:
        shell = Shell(system)
        system.start("producer")
        shell.run("submit", write_job(tmp_path))
        await system.until("typed", lambda view: view.state.state == "running" or view.lag > 0)
        said = shell.run("submit", write_job(tmp_path, partitions=2), code=2).stderr
        assert "accepted before with another body, which differs in partitions" in said
        assert "colour: unknown field" in shell.run("submit", write_job(tmp_path, colour=1), code=2).stderr
        assert "cannot be read" in shell.run("submit", "none.json", code=2).stderr
        assert "no job 'ghost'" in shell.run("status", "ghost", code=2).stderr
        missing = write_job(tmp_path, source={"type": "files", "paths": ["none.jsonl"]})
        assert "none.jsonl cannot be read" in shell.run("run", missing, "--output", "out", code=1).stderr
        system.environment["KAFKA_BOOTSTRAP_SERVERS"] = "127.0.0.1:9"
        assert "KAFKA_BOOTSTRAP_SERVERS" in shell.run("jobs", code=3).stderr
        del system.environment["KAFKA_BOOTSTRAP_SERVERS"]
        # A refused message is mended by sending it again once it can be taken.
        await system.broker.publish(JOBS, [Message(b"bad", b"{")])
        key = ""
        while not key:
            found = shell.json("dead-letters", "list")
            key = next((letter["key"] for letter in found), "")
        assert shell.run("dead-letters", "show", key, "--raw").stdout == "{"
        shell.run("dead-letters", "requeue", key)
        # Kafka does not know this job, but its dataset is in the store: the producer refuses the id.
        taken = write_job(tmp_path, job_id="taken", name="taken")
        shell.run("run", taken, "--output", f"s3://{seaweed.bucket}/{system.prefix}")
        other = write_job(tmp_path, job_id="taken", name="other")
        assert "differs in name" in shell.run("submit", other, "--wait", code=2).stderr
