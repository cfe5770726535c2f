"""The validation split of a small set: `run` and `preview` say what the share gives, and warn."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import shardline
from shardline.cli.app import app
from shardline.services.splits import format_splits, rows_of_splits, split_warnings
from tests.make import job

DOCUMENTS = 50


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    text = "A sentence about building law, long enough. " * 40
    (tmp_path / "in.jsonl").write_text(
        "".join(
            json.dumps({"document_id": f"d{n}", "content": text, "court": f"c{n % 2}"}) + "\n"
            for n in range(DOCUMENTS)
        )
    )
    return tmp_path


def write_job(fraction: float | None = None, **output: Any) -> dict[str, Any]:
    share = {} if fraction is None else {"validation_fraction": fraction}
    body = {
        "name": "laws",
        "source": {"type": "files", "paths": ["in.jsonl"]},
        "quality": {"min_score": 0.0},
        "output": share | output,
    }
    Path("job.json").write_text(json.dumps(body))
    return body


def invoked(*arguments: str) -> tuple[str, str]:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def validation_ids(dataset: str) -> int:
    return sum(
        len(path.read_text().splitlines()) for path in Path(dataset, "data/validation").glob("*.jsonl")
    )


@pytest.mark.parametrize("fraction", [0.05, 0.5])
def test_run_and_preview_say_how_many_rows_are_in_the_validation_split(fraction: float) -> None:
    write_job(fraction)
    stdout, stderr = invoked("run", "job.json")
    real = validation_ids(stdout.strip())
    said = format_splits({"train": DOCUMENTS - real, "validation": real})
    assert f"splits: {said}" in stderr
    assert f"splits        {said}" in invoked("preview", "job.json")[0]
    preview = json.loads(invoked("preview", "job.json", "--json")[0])
    assert preview["splits"] == {"train": DOCUMENTS - real, "validation": real}
    assert json.loads(invoked("run", "job.json", "--json")[0])["splits"] == preview["splits"]


def test_no_row_in_the_validation_split_is_a_warning(folder: Path) -> None:
    body = write_job(0.0001)
    _, stderr = invoked("run", "job.json")
    warning = "no row is in the validation split: a hash of each document id decides"
    assert f"warning: {warning}" in stderr
    assert warning in invoked("preview", "job.json")[0]
    [found] = shardline.sync.run(body, output=folder / "other").warnings
    assert found.startswith(warning)


def test_groups_far_from_the_share_are_a_warning() -> None:
    write_job(0.05, group_by="court")
    _, stderr = invoked("run", "job.json")
    assert "a hash of the field 'court' decides" in stderr


def test_the_option_replaces_the_share_of_the_job() -> None:
    write_job(0.9)
    _, stderr = invoked("run", "job.json", "--validation-fraction", "0.3")
    assert "splits: train" in stderr
    write_job(0.3)
    # The same job: the id is made of what the option gives.
    assert "splits: train" in invoked("run", "job.json")[1]
    assert len(list(Path("datasets/laws").iterdir())) == 1
    write_job()
    assert "splits" in invoked("preview", "job.json", "--validation-fraction", "0.3")[0]
    assert "splits" not in invoked("preview", "job.json")[0]
    refused = CliRunner().invoke(app, ["preview", "job.json", "--validation-fraction", "1.5"])
    assert "output.validation_fraction" in str(refused.exception)


@pytest.mark.parametrize(
    ("fraction", "train", "validation", "said"),
    [
        (0.05, 43, 7, "7 of 50 rows (14.0%) are in the validation split"),
        (0.05, 48, 2, None),
        (0.05, 50, 0, "no row is in the validation split"),
        (0.9, 0, 5, "all rows are in the validation split"),
        (0.9, 1, 20, "20 of 21 rows (95.2%) are in the validation split"),
        (0.9, 10, 90, None),
        (0.5, 30, 20, None),
        (0.0, 50, 0, None),
        (0.05, 0, 0, None),
    ],
)
def test_what_is_far_from_the_share(fraction: float, train: int, validation: int, said: str | None) -> None:
    spec = job(output={"validation_fraction": fraction})
    found = split_warnings(spec, {"train": train, "validation": validation})
    assert [one.partition(":")[0] for one in found] == ([said] if said else [])


def test_a_sample_of_a_larger_source_is_no_reason_to_warn() -> None:
    write_job(0.01)
    out = json.loads(invoked("preview", "job.json", "--documents", "3", "--json")[0])
    assert out["exact"] is False
    assert "warning" not in invoked("preview", "job.json", "--documents", "3")[0]


def test_shards_are_counted_by_split() -> None:
    shards = [
        {"split": "train", "rows": 3},
        {"split": "validation", "rows": 1},
        {"split": "train", "rows": 2},
    ]
    assert rows_of_splits(job(output={"validation_fraction": 0.5}), shards) == {"train": 5, "validation": 1}
    assert format_splits({"train": 0, "validation": 0}) == "train 0, validation 0 (0.0%)"
