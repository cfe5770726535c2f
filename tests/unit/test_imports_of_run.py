"""`shardline run` over local files imports no client of a service that it does not use."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from shardline.services.sample import write_sample

PROGRAM = """
import gc, sys
from shardline.cli.app import main
try:
    main()
finally:
    print(sorted({name.partition(".")[0] for name in sys.modules}), gc.get_threshold(), file=sys.stderr)
"""
CLIENTS = [
    "aioboto3",
    "aiobotocore",
    "aiohttp",
    "aiokafka",
    "asyncpg",
    "botocore",
    "chromadb",
    "duckdb",
    "fastapi",
    "httpx",
    "multiprocessing",
    "neo4j",
    "numpy",
    "pyarrow",
    "rich",
    "structlog",
]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    write_sample(folder / "a.jsonl", 5)
    job = {"name": "a", "source": {"type": "files", "paths": ["a.jsonl"]}, "quality": {"min_score": 0}}
    (folder / "job.json").write_bytes(orjson.dumps(job))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "run", "job.json", "--output", "out"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (Path(folder) / "out").is_dir()
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_run_over_files_does_not_import(imported: str, client: str) -> None:
    assert "'shardline_producer'" in imported
    assert f"'{client}'" not in imported


def test_a_run_seldom_searches_for_cycles(imported: str) -> None:
    assert imported.endswith("(20000, 20, 20)")
