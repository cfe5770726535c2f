"""The lines of the pages that read a dataset return what was written, whatever the columns hold."""

import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from shardline import errors, sync
from tests.docs.blocks import DOCS, ROOT, blocks

Rows = list[dict[str, Any]]
READERS: Mapping[str, Callable[[Any], Rows]] = {
    "Hugging Face datasets": lambda rows: [dict(row) for row in rows],
    "DuckDB": lambda rows: [
        dict(zip(rows.columns, row, strict=True)) | {"metadata": json.loads(row[1])}
        for row in rows.fetchall()
    ],
    "polars": lambda rows: list(rows.to_dicts()),
    "pandas": lambda rows: list(rows.to_dict("records")),
    "Arrow": lambda rows: list(rows.to_pylist()),
}
LINES = {block.title: block.text for block in blocks(DOCS / "datasets.md") if block.title in READERS}
COUNT = 400
TEXT = "wort " * 6_000
"""Long enough for readers to guess the types from fewer than half of the rows."""


def late(value: object, early: object) -> Callable[[int], dict[str, object]]:
    """A column that has another value in the last rows."""
    return lambda number: {"column": early if number < COUNT - 20 else value}


SHAPES: Mapping[str, Callable[[int], dict[str, object]]] = {
    "null, then text": late("Name", None),
    "times, then text": late("unbekannt", "2024-03-01T10:00:00"),
    "extra is null, then set": late({"a": 1}, 7),
    "null, then a number": late(1.5, None),
    "texts that look like something else": lambda number: {
        "day": f"2024-03-{number % 28 + 1:02d}",
        "zone": "2024-03-01T10:00:00+02:00",
        "nanoseconds": "2024-03-01T10:00:00.123456789Z",
        "clock": "12:30:00",
        "digits": "007",
        "exponent": "1e5",
        "truth": "true",
        "uuid": "6f9619ff-8b86-d011-b42d-00cf4fc96400",
        "nothing": "null",
        "not_a_number": "NaN",
        "created_at": "1700000000",
    },
    "numbers": lambda number: {"whole": number - 2**62, "part": number / 7, "flag": number % 2 == 0},
    "line breaks": lambda number: {"column": f"a\u2028b\u0085c\n{number}\r"},
}
IDS = ("2024-01-02", "00123", "6f9619ff-8b86-d011-b42d-00cf4fc96400", "1e5", "12:30:00")


@pytest.fixture(scope="module", params=SHAPES)
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with one shape of columns."""
    folder = tmp_path_factory.mktemp("reading")
    with (folder / "in.jsonl").open("w", encoding="utf-8") as file:
        for number in range(COUNT):
            row = {
                "document_id": f"{IDS[number % 5]}-{number}" if number >= 5 else IDS[number],
                "content": TEXT,
                **SHAPES[request.param](number),
            }
            file.write(json.dumps(row) + "\n")
    job = {
        "name": "laws",
        "source": {"type": "files", "paths": [str(folder / "in.jsonl")]},
        "quality": {"min_score": 0},
        "partitions": 2,
    }
    return Path(sync.run(job, output=folder / "out").dataset)


def written(dataset: Path) -> Rows:
    shards = sorted((dataset / "data" / "train").iterdir())
    return [
        json.loads(line) for shard in shards for line in shard.read_text(encoding="utf-8").split("\n") if line
    ]


@pytest.mark.parametrize("reader", READERS)
def test_a_documented_line_returns_what_was_written(
    dataset: Path, reader: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    names: dict[str, Any] = {"FOLDER": str(dataset)}
    exec(LINES[reader], names)  # noqa: S102 - a block of our own page
    found = READERS[reader](names["rows"])
    assert len(found) == COUNT
    assert found == written(dataset)


def test_the_card_loads_its_dataset(dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.chdir(dataset)
    card = (dataset / "README.md").read_text(encoding="utf-8")
    snippet = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippet) == 1
    names: dict[str, Any] = {}
    exec(snippet[0], names)  # noqa: S102 - what a user copies from the card
    assert [dict(row) for row in names["rows"]] == written(dataset)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_the_card_loads_compressed_shards(
    compression: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A shard of more than one frame or member: 12 MB, of which no part repeats.
    with (tmp_path / "in.jsonl").open("w", encoding="utf-8") as file:
        for number in range(COUNT):
            text = " ".join(sha256(f"{number}.{part}".encode()).hexdigest() for part in range(460))
            file.write(json.dumps({"document_id": f"d{number}", "content": text}) + "\n")
    job = {
        "name": "laws",
        "source": {"type": "files", "paths": [str(tmp_path / "in.jsonl")]},
        "quality": {"min_score": 0},
        "partitions": 1,
        "output": {"compression": compression},
    }
    result = sync.run(job, output=tmp_path / "out")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(result.dataset)
    snippet = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(snippet[0], names)  # noqa: S102 - what a user copies from the card
    assert [row["document_id"] for row in names["rows"]] == [f"d{number}" for number in range(COUNT)]


def test_card_and_readme_show_the_same_lines(dataset: Path) -> None:
    def code(text: str) -> list[str]:
        block = next(one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "datasets" in one)
        return [line for line in block.splitlines() if not line.startswith("folder = ")]

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert code((dataset / "README.md").read_text(encoding="utf-8")) == code(readme)


def test_features_name_the_datasets_below_a_folder_without_one(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match=r"has no manifest.json") as refused:
        sync.features(dataset.parent.parent)
    assert str(dataset) in str(refused.value.hint)
    with pytest.raises(errors.UsageError) as refused:
        sync.features(tmp_path)
    assert "the folder that has _SUCCESS" in str(refused.value.hint)
