"""What the benchmarks count: the CPU and memory of whole trees of processes, and ratios of one round."""

import sys
from pathlib import Path

import pytest

from tests.benchmarks.aims.rounds import Aim, Measured
from tests.benchmarks.process_tree import run_tree

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
