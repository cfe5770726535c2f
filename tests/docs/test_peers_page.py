"""The figures of other tools: the README shows those that `make bench-peers` recorded."""

import json
import re
import tomllib

import pytest

from tests.docs.blocks import DOCS, ROOT
from tools.peers_page import cost, readme_cells, rows

RECORDED = json.loads((DOCS / "peers.json").read_text(encoding="utf-8"))
IN_README = {
    "shardline": "**Shardline**",
    "script": "a script",
    "hf": "[Hugging Face datasets]",
    "datatrove": "[datatrove]",
    "spark": "[Spark",
    "flink": "[Flink",
}


@pytest.mark.parametrize(("name", "start"), IN_README.items())
def test_the_readme_shows_what_was_recorded(name: str, start: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    assert row.endswith(readme_cells(RECORDED, name))


def test_every_tool_has_a_version_a_licence_and_a_guarantee() -> None:
    tools = tomllib.loads((ROOT / "tests" / "benchmarks" / "peers" / "peers.toml").read_text())
    for about in tools.values():
        assert about["licence"]
        assert about["guarantee"]
        assert "version" in about or all(re.search(r"==\d", one) for one in about["pip"])
    assert RECORDED["tools"].keys() == tools.keys()


def test_the_table_names_the_cheapest_tool_first() -> None:
    found = {name: min(made.per_million) for name, one in RECORDED["files"].items() if (made := cost(one))}
    cheapest = RECORDED["tools"][min(found, key=found.__getitem__)]
    assert rows(RECORDED, "files")[0][:2] == [cheapest["title"], cheapest["version"]]
