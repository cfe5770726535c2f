"""The suite itself is interrupted or killed: none of the processes that it started is left."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent
RUN = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/support/interrupted_run.py"]
MAKEFILE = "SHELL := bash\n.SHELLFLAGS := -eu -o pipefail -c\nrun:\n\t{}\n"
NAMES = ("servers", "processes")


def started(folder: Path, command: list[str], names: tuple[str, ...]) -> psutil.Popen:
    """A run of the suite, once all that its tests start is running."""
    env = os.environ | {"PIDS": str(folder), "PYTEST_DEBUG_TEMPROOT": str(folder)}
    with (folder / "log.txt").open("wb") as log:
        # As in a terminal: a session of its own, and SIGINT is not ignored.
        run = psutil.Popen(
            command,
            cwd=ROOT,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    deadline = time.monotonic() + 120
    while not all((folder / name).exists() for name in names):
        assert run.poll() is None, (folder / "log.txt").read_text()
        assert time.monotonic() < deadline, (folder / "log.txt").read_text()
        time.sleep(0.1)
    return run


def noted(folder: Path, *names: str) -> list[psutil.Process]:
    """The processes that the tests have noted: they run now."""
    return [psutil.Process(int(pid)) for name in names for pid in (folder / name).read_text().split()]


def runs(process: psutil.Process) -> bool:
    """Whether a process runs: one that its parent has not waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_all_end(processes: list[psutil.Process]) -> None:
    """Fail where one of them is left."""
    assert len(processes) > 4
    deadline = time.monotonic() + 60
    while left := list(filter(runs, processes)):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.server
@pytest.mark.parametrize(
    ("way", "workers", "names"),
    [
        ("group", "2", NAMES),
        ("controller killed", "2", ("processes",)),
        ("make alone", "0", ("processes",)),
        ("pytest alone", "0", ("servers",)),
    ],
)
def test_an_interrupted_run_leaves_no_process(
    tmp_path: Path, way: str, workers: str, names: tuple[str, ...]
) -> None:
    command = " ".join([*RUN, "-n", workers, "-k", f"'{' or '.join(names)}'"])
    (tmp_path / "Makefile").write_text(MAKEFILE.format(command))
    run = started(tmp_path, ["make", "-f", str(tmp_path / "Makefile"), "run"], names)
    processes = [*run.children(recursive=True), *noted(tmp_path, *names)]
    if way == "group":
        os.killpg(run.pid, signal.SIGINT)
    elif way == "make alone":
        run.send_signal(signal.SIGINT)
    else:
        (controller,) = run.children()
        controller.send_signal(signal.SIGINT if way == "pytest alone" else signal.SIGKILL)
    assert_all_end([run, *processes])
    run.wait()


@pytest.mark.server
def test_a_killed_worker_leaves_no_process(tmp_path: Path) -> None:
    run = started(tmp_path, [*RUN, "-n", "2", "--max-worker-restart", "0"], NAMES)
    worker, *children = noted(tmp_path, "processes")
    worker.kill()
    try:
        # The other worker goes on.
        assert_all_end([worker, *children])
        assert all(map(runs, [run, *noted(tmp_path, "servers")]))
    finally:
        run.send_signal(signal.SIGINT)
    assert_all_end([run, *run.children(recursive=True), *noted(tmp_path, "servers")])
    run.wait()
