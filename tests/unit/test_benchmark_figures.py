"""What the benchmarks count: the CPU and memory of whole trees of processes, and ratios of one round."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.benchmarks.aims.rounds import Aim, Measured
from tests.benchmarks.flame import picture, read_folded
from tests.benchmarks.process_tree import run_tree
from tools.peers_page import cost

# A process ends after it has started another one, which its parent does not wait for.
ORPHAN = """
import subprocess, sys
subprocess.Popen([sys.executable, "-S", "-c", {burn!r}])
"""
BURN = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"


def test_the_cpu_of_a_process_that_nobody_waits_for_counts(tmp_path: Path) -> None:
    used = run_tree([sys.executable, "-c", ORPHAN.format(burn=BURN)], tmp_path / "log")
    assert used.cpu >= 0.5


def test_memory_is_that_of_the_largest_process(tmp_path: Path) -> None:
    used = run_tree([sys.executable, "-S", "-c", "b = b'x' * (200 << 20)"], tmp_path / "log")
    assert 200 <= used.peak_mib < 260


def test_a_command_that_fails_is_an_error_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such job"):
        run_tree([sys.executable, "-S", "-c", "raise SystemExit('no such job')"], tmp_path / "log")


def test_a_ratio_is_of_figures_of_one_round() -> None:
    aim = Aim("run", "run", "CPU-s/M", "script", 2)
    measured = Measured([aim], [{"run": 30.0, "script": 10.0}, {"run": 40.0, "script": 40.0}, {"run": 1.0}])
    assert measured.ratios(aim) == [3.0, 1.0]
    assert measured.rows()[0][4:] == ["1 (2)", "≤ 2 times", "yes"]


def test_an_aim_that_nothing_measured_is_neither_met_nor_missed() -> None:
    aim = Aim("slices", "speed-up", "times", bound=1.7, least=True)
    assert Measured([aim]).rows()[0] == ["slices", "times", "-", "", "-", "≥ 1.7 times", ""]


def test_a_flame_graph_is_as_wide_as_its_samples() -> None:
    loop = "run (app.py:1);Handle._run (asyncio/events.py:78)"
    lines = [f"{loop};send (pipeline.py:1) 3", f"{loop};encode<T> (encoder.py:1) 1"]
    drawn = ET.fromstring(picture("a title", read_folded(lines)))  # noqa: S314 - our own picture
    wide = {group[0].text: float(group[1].get("width", "")) for group in drawn if group.tag.endswith("}g")}
    assert (
        wide["event loop 100.0%"]
        > wide["send (pipeline.py:1) 75.0%"]
        > 2.9 * wide["encode<T> (encoder.py:1) 25.0%"]
    )


def test_the_cost_of_a_tool_is_the_line_through_two_sizes() -> None:
    measured = {"cpu": {"1000": [2.0], "11000": [3.0]}, "peak_mib": {"1000": [50.0], "11000": [60.0]}}
    found = cost(measured)
    assert found is not None
    assert (found.per_million[0], round(found.start[0], 6), found.peak_mib) == (100.0, 1.9, 60.0)
    assert cost({"cpu": {}, "peak_mib": {}, "skipped": "no java"}) is None
