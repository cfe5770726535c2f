"""Every command of README.md, the quick start and the tutorials, in a shell, on real services."""

import secrets
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from tests.databases import Database
from tests.docs.blocks import DOCS, NOT_RUN, ROOT, blocks
from tests.docs.shell import clone, follow
from tests.services import S3

PAGES = [ROOT / "README.md", DOCS / "quick-start.md", *sorted((DOCS / "tutorials").glob("*.md"))]


def own_bucket(s3: S3) -> dict[str, str]:
    """Make an empty bucket for a page and return its settings."""
    name = f"page-{secrets.token_hex(4)}"
    S3FileSystem(key=s3.access_key, secret=s3.secret_key, endpoint_url=s3.endpoint).mkdir(name)
    return s3.env | {"S3_BUCKET": name, "AWS_ENDPOINT_URL_S3": s3.endpoint}


@pytest.mark.timeout(660)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_do_what_the_page_says(
    page: Path, tmp_path: Path, kafka: str, seaweed: S3, database: Database
) -> None:
    env = database.env | own_bucket(seaweed)
    env |= {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "KAFKA_TOPIC_PREFIX": f"page{secrets.token_hex(4)}.",
        "AWS_REGION": "us-east-1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / ".hf"),
        "COLUMNS": "160",
        "LC_ALL": "C.UTF-8",
    }
    clone(tmp_path)
    found = list(blocks(page))
    assert any(block.commands for block in found)
    follow(found, tmp_path, env)


def test_commands_that_are_not_run_have_a_reason() -> None:
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        for block in blocks(page):
            if block.title.startswith(NOT_RUN.strip()):
                assert len(block.title) > len(NOT_RUN) + 5, block.place


def test_programs_that_are_not_run_compile() -> None:
    shown = [block for page in PAGES for block in blocks(page) if block.language == "python"]
    assert any(block.file == "train.py" for block in shown)
    for block in shown:
        compile(block.text, block.place, "exec")
