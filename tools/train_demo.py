"""`make train-demo`: trains a LoRA adapter from s3:// shards, kills and continues it, then by two processes.

The training program is docs/examples/train_lora.py, in an environment of its own with torch, transformers and
peft (5 GB). The demo ends with exit code 1 unless every claim that it prints is true.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from deploy.dev.seaweed import ACCESS_KEY, BUCKET, SECRET_KEY, Seaweed
from deploy.dev.service import ROOT, free_ports
from shardline.cli.console import print_line, print_message

PACKAGES = ("torch==2.15.0", "transformers==5.24.0", "peft==0.21.2")
PROGRAM = ROOT / "docs" / "examples" / "train_lora.py"
PICTURE = ROOT / "docs" / "images" / "train-loss.svg"
DOCUMENTS, EPOCHS, BATCH = 700, 3, 16
KILLED_AFTER_STEPS, WAIT_SECONDS = 17, 600.0
JOB = {
    "job_id": "train-demo",
    "name": "train-demo",
    "source": {"type": "files", "paths": ["documents.jsonl"]},
    "quality": {"min_score": 0},
    "dedup": {"exact": True},
    "output": {"shards": {"count": 8, "equal": True}, "splits": {"train": 0.9, "validation": 0.1}},
}


def main() -> None:
    """Run the demo in the folder that the first argument names."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".run/train").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    store = Seaweed(folder / "seaweed")
    store.start()
    try:
        variables = {
            "AWS_ENDPOINT_URL_S3": store.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        dataset = make_dataset(folder, variables)
        whole, resumed, ranks = train(folder, python, dataset, variables)
    finally:
        store.stop()
    show(whole, resumed, ranks)


def environment(folder: Path) -> str:
    """The Python of the environment with the packages and this project; it is made when it is not there."""
    python, mark = folder / "venv" / "bin" / "python", folder / "venv" / "installed"
    if not mark.exists():
        print_message("making an environment with torch, transformers and peft (5 GB, some minutes)")
        shutil.rmtree(folder / "venv", ignore_errors=True)
        run([sys.executable, "-m", "venv", str(folder / "venv")])
        run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES, "-e", str(ROOT)])
        mark.touch()
    return str(python)


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end. The demo ends with its exit code when it fails."""
    done = subprocess.run(command, check=False, **options)  # noqa: S603 - the programs of the demo
    if done.returncode:
        sys.exit(done.returncode)
    return done


def make_dataset(folder: Path, variables: Mapping[str, str]) -> str:
    """An assembled dataset of 8 equal shards in S3; its address."""
    env = {**os.environ, **variables}
    shardline = [sys.executable, "-m", "shardline"]
    (folder / "job.json").write_bytes(orjson.dumps(JOB, option=orjson.OPT_INDENT_2))
    run(
        [*shardline, "sample", "documents.jsonl", "--documents", str(DOCUMENTS)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    command = [*shardline, "run", "job.json", "--output", f"s3://{BUCKET}/demo", "--json"]
    done = run(command, cwd=folder, env=env, stdout=subprocess.PIPE)
    return str(orjson.loads(done.stdout)["dataset"])


def train(
    folder: Path, python: str, dataset: str, variables: Mapping[str, str]
) -> tuple[list[Any], list[Any], list[list[Any]]]:
    """The steps of a whole run, of one that was killed and continued, and of two ranks."""
    env = {**os.environ, **variables, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

    def started(name: str, **more: str) -> subprocess.Popen[bytes]:
        options = ["--folder", str(folder / name), "--epochs", str(EPOCHS), "--batch", str(BATCH)]
        return subprocess.Popen([python, str(PROGRAM), dataset, *options], env={**env, **more})  # noqa: S603 - the program of the demo

    for name in ("whole", "killed", "ranks"):
        shutil.rmtree(folder / name, ignore_errors=True)
    print_message("training in one process")
    ended(started("whole"))
    print_message(f"training again, killed behind step {KILLED_AFTER_STEPS}")
    process, log = started("killed"), folder / "killed" / "log-0.jsonl"
    until = time.monotonic() + WAIT_SECONDS
    while len(steps(log)) < KILLED_AFTER_STEPS and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(steps(log))
    ended(started("killed"))
    print_message(f"it was killed at step {before}; training in two processes")
    (port,) = free_ports(1)
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [started("ranks", RANK=str(rank), **group) for rank in range(2)]
    for one in both:
        ended(one)
    ranks = [steps(folder / "ranks" / f"log-{rank}.jsonl") for rank in range(2)]
    return steps(folder / "whole" / "log-0.jsonl"), steps(log), ranks


def ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process. The demo ends when it fails."""
    if process.wait(WAIT_SECONDS):
        sys.exit(f"the training failed with exit code {process.returncode}")


def steps(log: Path) -> list[dict[str, Any]]:
    """The whole lines of a log."""
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [json.loads(line) for line in lines]


def rows_by_epoch(found: Sequence[Mapping[str, Any]]) -> dict[int, Counter[str]]:
    """How often each row came in each epoch."""
    epochs: dict[int, Counter[str]] = {}
    for step in found:
        epochs.setdefault(step["epoch"], Counter()).update(step["ids"])
    return epochs


def show(whole: list[Any], resumed: list[Any], ranks: list[list[Any]]) -> None:
    """Print what is true, and draw the loss. The demo ends with exit code 1 when a claim is not true."""
    epochs, again = rows_by_epoch(whole), rows_by_epoch(resumed)
    rows = set(epochs[0])
    per_epoch = len(whole) // EPOCHS
    first, last = (sum(step["loss"] for step in part) / len(part) for part in (whole[:5], whole[-5:]))
    halves = [rows_by_epoch(found) for found in ranks]
    claims = {
        f"each of {EPOCHS} epochs has each of {len(rows)} rows once": all(
            set(one) == rows and set(one.values()) == {1} for one in epochs.values()
        )
        and len(epochs) == EPOCHS,
        "so has the run that was killed": again == epochs,
        "it ends with the same losses": [round(step["loss"], 4) for step in resumed]
        == [round(step["loss"], 4) for step in whole],
        f"the loss falls: {first:.2f} to {last:.2f}": last < first - 0.5,
        f"two processes read {len(halves[0][0])} and {len(halves[1][0])} rows, none in both": all(
            set(halves[0][epoch]).isdisjoint(halves[1][epoch])
            and {*halves[0][epoch], *halves[1][epoch]} == rows
            for epoch in range(EPOCHS)
        ),
    }
    print_line("")
    for claim, is_true in claims.items():
        print_line(f"{'yes' if is_true else 'NO '}  {claim}")
    PICTURE.write_text(loss_picture([step["loss"] for step in whole], per_epoch))
    print_line(f"the curve of the loss is {os.path.relpath(PICTURE)}")
    if not all(claims.values()):
        sys.exit(1)


def loss_picture(losses: Sequence[float], per_epoch: int) -> str:
    """The curve of a loss as SVG, with a line between epochs."""
    width, height, edge = 640, 240, 36
    low, high = min(losses), max(losses)

    def at(step: int, loss: float) -> str:
        x = edge + (width - 2 * edge) * step / max(1, len(losses) - 1)
        y = edge + (height - 2 * edge) * (high - loss) / ((high - low) or 1)
        return f"{x:.1f},{y:.1f}"

    points = " ".join(at(step, loss) for step, loss in enumerate(losses))
    ends = [at(step, high).partition(",")[0] for step in range(per_epoch, len(losses), per_epoch)]
    lines = "".join(f'<line x1="{x}" x2="{x}" y1="{edge}" y2="{height - edge}" stroke="#bbb"/>' for x in ends)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12">\n<title>Loss of the demo of training, by step</title>\n'
        f'<rect width="{width}" height="{height}" fill="#fff"/>\n{lines}\n'
        f'<polyline points="{points}" fill="none" stroke="#2f7d5b" stroke-width="2"/>\n'
        f'<text x="4" y="{edge + 4}">{high:.2f}</text><text x="4" y="{height - edge + 4}">{low:.2f}</text>\n'
        f'<text x="{width / 2}" y="{height - 10}" text-anchor="middle">'
        f"{len(losses)} steps; a line at the end of each epoch</text>\n</svg>\n"
    )


if __name__ == "__main__":
    main()
