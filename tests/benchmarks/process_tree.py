"""Runs a command and reports what its whole tree of processes used: CPU, peak memory, time.

As a program, `process_tree.py REPORT COMMAND …`, it needs the standard library only: it is the parent
that inherits every process of the command, also those whose own parent has ended.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.04
_GRACE_SECONDS = 20.0
_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class TreeUsage:
    """What a command used.

    `cpu` is exact. `peak_mib` is the largest process's peak or, of several processes at once, the largest
    sampled sum of their proportional memory. `busiest` is the CPU of the process with most of it, sampled:
    with a core for each process, the command takes about that long.
    """

    cpu: float
    wall: float
    peak_mib: float
    busiest: float
    processes: int


def run_tree(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> TreeUsage:
    """Run a command to its end. Its output goes into `log`, whose folder is its working directory.

    Raises:
        RuntimeError: the command failed; the end of its output is in the message.
    """
    report = log.with_suffix(".usage.json")
    watched = [sys.executable, __file__, str(report), *command]
    with log.open("wb") as out:
        # Not in the working directory: `python -m` would import the packages that are there.
        done = subprocess.run(
            watched, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=log.parent, check=False
        )
    if done.returncode:
        said = log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{' '.join(command)[:300]} exits with {done.returncode}:\n{said}")
    return TreeUsage(**json.loads(report.read_text()))


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        # The process or one of its threads has ended.
        pass
    return found


def _descendants(pid: int) -> list[int]:
    found = _children(pid)
    for child in found:
        found += _children(child)
    return found


class _Sampler:
    def __init__(self) -> None:
        self.cpu: dict[int, float] = {}
        self.peak = 0.0

    def sample(self, pids: Sequence[int]) -> None:
        """Note the CPU of each process and, if there are several, their memory together."""
        memory = 0.0
        for pid in pids:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                self.cpu[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
                if len(pids) > 1:
                    # Pages that processes share are divided among them: a sum of RSS would count them twice.
                    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                    line = next(line for line in rollup if line.startswith("Pss:"))
                    memory += int(line.split()[1]) / 1024
            except (OSError, StopIteration):
                continue
        self.peak = max(self.peak, memory)


def main() -> int:
    """Run the command of the arguments, write the report, return the command's exit code."""
    report, command = Path(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sampler, started = _Sampler(), time.perf_counter()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            sampler.sample(_descendants(os.getpid()))
            time.sleep(SAMPLE_SECONDS)
    wall = time.perf_counter() - started
    _reap()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = TreeUsage(
        used.ru_utime + used.ru_stime,
        wall,
        max(sampler.peak, used.ru_maxrss / 1024),
        max(sampler.cpu.values(), default=0.0),
        len(sampler.cpu),
    )
    report.write_text(json.dumps(found.__dict__))
    return process.returncode


def _reap() -> None:
    # What the command left behind ends soon. Its CPU counts only after it has been waited for.
    deadline = time.monotonic() + _GRACE_SECONDS
    try:
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                if time.monotonic() > deadline:
                    for left in _children(os.getpid()):
                        os.kill(left, signal.SIGKILL)
                time.sleep(SAMPLE_SECONDS)
    except ChildProcessError:
        return


if __name__ == "__main__":
    sys.exit(main())
