"""Every command names a wrong configuration of S3 in a sentence, with the exit code of its kind."""

import json
import os
import subprocess
import sys
from pathlib import Path

# One process for all: to import the program takes longer than a command that fails.
_PROGRAM = """
import contextlib, io, json, os, sys, traceback
from shardline.cli.app import main

base = dict(os.environ)
for name, environ, arguments in json.load(sys.stdin):
    os.environ.clear()
    os.environ.update(base | environ)
    sys.argv = ["shardline", *arguments]
    output, code = io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
        except BaseException:
            traceback.print_exc(file=output)
            code = -1
    print(json.dumps([name, arguments[0], code, output.getvalue()]), flush=True)
"""
_KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
# Name → the environment, a word of the message, and the exit code of commands that write to the store.
CASES = {
    "profile": ({"AWS_PROFILE": "nope"}, "nope", 2),
    "endpoint": (_KEYS | {"AWS_ENDPOINT_URL_S3": "localhost:9000"}, "http://localhost:9000", 2),
    "configuration": (_KEYS | {"AWS_CONFIG_FILE": "broken"}, "broken", 2),
    "CA file": (_KEYS | {"AWS_CA_BUNDLE": "/no/ca.pem"}, "/no/ca.pem", 2),
    "process": ({"AWS_CONFIG_FILE": "process"}, "/no/such/program", 3),
    "process prints junk": ({"AWS_CONFIG_FILE": "junk"}, "credential_process", 3),
    "no keys": ({}, "no credentials are found", 3),
    "token": ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/no/token", "AWS_ROLE_ARN": "arn:role"}, "/no/token", 3),
    "refused": (_KEYS, "nothing listens", 3),
    "proxy": (_KEYS | {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": ""}, "HTTP_PROXY", 3),
    "region": (_KEYS | {"AWS_ENDPOINT_URL_S3": "", "AWS_REGION": "xx-none-9"}, "AWS_REGION", 3),
}  # fmt: skip
# Those that only open the store: a store that cannot be reached is waited for.
_WAITING = ("producer", "worker", "gateway")
# It waits for Kafka first, so not all.
_BY_DOCTOR = ("profile", "process", "refused")


def commands(folder: Path) -> dict[str, list[str]]:
    body = {"name": "x", "source": {"type": "files", "paths": ["s3://input/a.jsonl"]}, "partitions": 1}
    (folder / "s3.json").write_text(json.dumps(body))
    (folder / "local.json").write_text(json.dumps(body | {"source": {"type": "files", "paths": ["a.jsonl"]}}))
    (folder / "a.jsonl").write_text('{"document_id": "1", "content": "a law"}\n')
    return {
        "run": ["run", "local.json", "--output", "s3://datasets/x"],
        "preview": ["preview", "s3.json"],
        "verify": ["verify", "s3://datasets/x/y"],
        "doctor": ["doctor"],
        "producer": ["producer", "--metrics-port", "0"],
        "worker": ["worker", "--metrics-port", "0"],
        "gateway": ["gateway"],
    }


def test_each_command_says_what_is_wrong_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("no section\n")
    for name, program in (("process", "/no/such/program"), ("junk", "echo junk")):
        (tmp_path / name).write_text(f"[default]\ncredential_process = {program}\n")
    own = {
        name: value for name, value in os.environ.items() if "AWS" not in name and "PROXY" not in name.upper()
    }
    own |= {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "CLARA_SECURITY_MODE": "debug",
        "GATEWAY_PORT": "0",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "S3_BUCKET": "datasets",
        "SHARDLINE_METRICS_PORT": "0",
    }
    calls = [
        (name, environ, arguments)
        for name, (environ, _, code) in CASES.items()
        for command, arguments in commands(tmp_path).items()
        if (code == 2 or command not in _WAITING) and (command != "doctor" or name in _BY_DOCTOR)
    ]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=tmp_path,
        env=own,
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(calls), done.stderr
    for name, command, code, output in found:
        _, word, expected = CASES[name]
        assert "Traceback" not in output + done.stderr, (name, command, output)
        if command == "doctor":
            # Its table breaks words at the end of a line.
            assert code == 3, (name, output)
            continue
        assert word in output, (name, command, output)
        # A source that refuses fails the job. One that cannot be reached is a service that is missing.
        allowed = (1, 3) if command == "preview" and expected == 3 else (expected,)
        assert code in allowed, (name, command, output)
