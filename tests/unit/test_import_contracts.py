"""Each import contract of pyproject.toml refuses a breach that is planted for it."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = (
    "common/shardline_common",
    "producer/shardline_producer",
    "consumer/shardline_consumer",
    "shardline",
)
# Contract -> (file, import): the import breaks the contract, and the file has no such import today.
BREACHES = {
    "Imports point one way": (
        "consumer/shardline_consumer/segment.py",
        "import shardline_producer.encoder",
    ),
    "The rooms of common": (
        "common/shardline_common/ports/store.py",
        "import shardline_common.dataset.manifest",
    ),
    "The rooms of shardline": ("shardline/services/row_stream.py", "import shardline.cli.console"),
    "Sources know nothing of the jobs that read them": (
        "producer/shardline_producer/sources/planned.py",
        "import shardline_producer.attempt",
    ),
    "Sources know no broker and no store of datasets": (
        "producer/shardline_producer/sources/source.py",
        "import shardline_common.storage.s3",
    ),
    "Kinds of source do not import each other": (
        "producer/shardline_producer/sources/themis/client.py",
        "import shardline_producer.sources.files.lines",
    ),
    "Filters are pure": (
        "consumer/shardline_consumer/filters/clara.py",
        "import shardline_common.runtime.clock",
    ),
    "Producer and consumer know no adapter": (
        "producer/shardline_producer/backlog.py",
        "import shardline_common.memory.broker",
    ),
    "Only common/kafka speaks to Kafka": ("common/shardline_common/telemetry/health.py", "import aiokafka"),
    "Only common/storage speaks to S3": ("common/shardline_common/telemetry/metrics.py", "import aioboto3"),
    "Only common/http, /metrics and S3's transport use aiohttp": ("shardline/clara.py", "import aiohttp"),
    "Only common/telemetry makes logs, metrics and traces": (
        "shardline/services/processes.py",
        "import prometheus_client",
    ),
    "Only common/settings reads .env": ("shardline/services/doctor.py", "import dotenv"),
    "Only sources/uds3/postgres speaks to PostgreSQL": (
        "producer/shardline_producer/job_runner.py",
        "import asyncpg",
    ),
    "Only sources/uds3/neo4j speaks to Neo4j": (
        "producer/shardline_producer/sources/uds3/search.py",
        "import neo4j",
    ),
    "Only sources/uds3/embedding runs models, and only assembly makes signatures": (
        "producer/shardline_producer/sources/uds3/chroma/ranker.py",
        "import numpy",
    ),
    "Only the gateway speaks HTTP to people and programs": (
        "shardline/services/wiring/sources.py",
        "import jwt",
    ),
    "Only common/assembly uses DuckDB": ("common/shardline_common/dataset/verify.py", "import duckdb"),
    "Only sources/files, common/assembly and the gateway's exports use pyarrow": (
        "producer/shardline_producer/sources/uds3/scan.py",
        "import pyarrow",
    ),
    "Only dataset/signing makes and checks signatures": (
        "common/shardline_common/dataset/publish.py",
        "import cryptography",
    ),
    "Only the command line draws on a terminal": ("shardline/services/client.py", "import rich"),
}


def lint(tree: Path) -> dict[str, str]:
    """Contract -> what lint-imports says of it: KEPT, or the list of its breaches."""
    env = {"PYTHONPATH": ":".join(str(tree / name) for name in ("", "common", "producer", "consumer"))}
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    verdicts = dict(re.findall(r"^(.+?) (KEPT|BROKEN)(?: \(.*\))?$", done.stdout, re.MULTILINE))
    assert verdicts, done.stdout + done.stderr
    for name, text in re.findall(r"^(.+)\n-+\n((?:.*\n)*?)(?=^.+\n-{3,}$|\Z)", done.stdout, re.MULTILINE):
        if verdicts.get(name) == "BROKEN":
            verdicts[name] = text
    return verdicts


def copy(tree: Path) -> None:
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tree / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tree)


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the linter says of a tree with all breaches."""
    tree = tmp_path_factory.mktemp("breached")
    copy(tree)
    for file, line in BREACHES.values():
        path = tree / file
        text = path.read_text(encoding="utf-8")
        assert f"\n{line}\n" not in text
        path.write_text(f"{text}\n\n{line}\n", encoding="utf-8")
    return lint(tree)


def test_every_contract_has_a_breach() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {one["name"] for one in config["tool"]["importlinter"]["contracts"]} == set(BREACHES)


def test_the_tree_keeps_every_contract(tmp_path: Path) -> None:
    copy(tmp_path)
    assert lint(tmp_path) == dict.fromkeys(BREACHES, "KEPT")


@pytest.mark.parametrize("contract", BREACHES)
def test_a_breach_is_refused(verdicts: dict[str, str], contract: str) -> None:
    file, line = BREACHES[contract]
    folder = next(package for package in PACKAGES if file.startswith(package + "/"))
    module = file.removeprefix(folder.rpartition("/")[0] + "/" if "/" in folder else "")
    importer = module.removesuffix(".py").replace("/", ".")
    # Long lines are wrapped.
    found = re.findall(rf"{re.escape(importer)} ->\s+(\S+)", verdicts[contract])
    imported = line.removeprefix("import ")
    assert any(imported == one or imported.startswith(one + ".") for one in found), verdicts[contract]
