"""The card of an assembled dataset: what was left out by which rule, clusters, order, splits and shards."""

from typing import Any

import pytest

from shardline_common.assembly.rule_steps import boilerplate_warnings
from shardline_common.dataset.card_assembly import assembly_section
from shardline_common.dataset.decision import Cluster, Clusters
from tests.make import job

EVERYTHING: dict[str, Any] = {
    "quality": {"duplicate_ids": "first"},
    "dedup": {"exact": True, "ignore_case": True, "against": ["s3://b/old"], "near": {"verify": 0.8}},
    "sample": {"rows": 5000, "seed": 3},
    "output": {
        "splits": {"train": 0.9, "validation": 0.1, "exact": True},
        "group_by": "court",
        "order": {"seed": 7},
        "shards": {"multiple_of": 2, "equal": True},
    },
}
NEAR = "one of 14 bands of 8 values equal, seed 0, and 0.8 of all values equal"


def section(changes: dict[str, Any], clusters: dict[str, Any] | None = None, *warnings: str) -> str:
    spec = job(**changes)
    manifest = {
        "job": spec.model_dump(mode="json"),
        "rejected": {"duplicate": 1200, "near_duplicate": 7, "empty": 3},
        "assembly": {"warnings": list(warnings), "clusters": clusters},
        "shards": [
            {"split": "train", "rows": 1500},
            {"split": "train", "rows": 1499},
            {"split": "validation", "rows": 1},
        ],
    }
    return "\n".join(assembly_section(manifest))


def test_each_rule_says_what_it_left_out_in_the_order_in_which_it_applies() -> None:
    found = [line for line in section(EVERYTHING).splitlines() if line.startswith("| ")]
    assert found == [
        "| rows | because | rule of the job |",
        "| 0 | another row has the id | `duplicate_ids`: first |",
        "| 1,200 | another row has the text | `exact`, whatever the case |",
        "| 0 | another dataset has the text | `against` `s3://b/old`, whatever the case |",
        f"| 7 | another row has nearly the text | `near`: {NEAR} |",
        "| 0 | not in the sample | `sample`: 5,000 rows, seed 3 |",
        "| 0 | all shards of a split are equal | `shards`: equal |",
        "| split | rows | share | asked for | shards | rows of a shard |",
        "| train | 2,999 | 99.97% | 90% | 2 | 1,499 to 1,500 |",
        "| validation | 1 | 0.03% | 10% | 1 | 1 |",
    ]


def test_how_rows_are_ordered_and_split_is_said() -> None:
    found = section(EVERYTHING)
    assert "shuffled, by a hash of the seed 7 and their ids" in found
    assert "Rows with the same `court` are in one split" in found
    assert "The shares are kept to within one group" in found
    kept = section({"output": {"order": "source", "splits": {"train": 1.0, "leak": "near"}}})
    assert "in the order of the source" in kept
    assert "Near duplicates are in one split" in kept
    assert "Left out" not in kept
    assert "| train | 2,999 | 2 | 1,499 to 1,500 |" in kept, "one split has no share"


def test_clusters_name_the_document_that_they_resemble_as_it_is() -> None:
    largest = [
        {"records": 1001, "id": "law-1"},
        {"records": 1000, "id": "a|b`c"},
        {"records": 2, "id": "x" * 90},
    ]
    found = section(EVERYTHING, {"count": 40, "records": 2500, "largest": largest})
    assert "2,500 rows are in 40 clusters of rows that are nearly alike. The 3 largest:" in found
    assert "2 rows are in 1 cluster of" in section({}, {"count": 1, "records": 2, "largest": largest[2:]})
    assert "| 1,001 | `law-1` (boilerplate?) |" in found
    assert "| 1,000 | a\\|b\\`c |" in found
    assert f"| 2 | `{'x' * 79}…` |" in found


def test_warnings_of_the_decision_are_on_the_card() -> None:
    assert "> **Warning:** split train has 3 rows, \\<b\\>fewer." in section(
        {}, None, "split train has 3 rows, <b>fewer."
    )


def test_a_stream_has_no_such_section() -> None:
    assert assembly_section({"job": job().model_dump(mode="json")}) == []


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ((1000, 5), None),
        ((1001, 5), "documents: 1; the largest has 1,001, which resemble 'd0'"),
        ((9999, 2000), "2 or more"),
    ],
)
def test_clusters_too_large_to_be_copies_are_reported(records: tuple[int, ...], expected: str | None) -> None:
    largest = tuple(Cluster(count, f"d{number}") for number, count in enumerate(records))
    found = boilerplate_warnings(Clusters(len(records), sum(records), largest))
    assert (found == ()) if expected is None else (expected in found[0])
    assert boilerplate_warnings(None) == ()
