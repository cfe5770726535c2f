"""Two producers that share a job of two slices, beside one producer of the job without slices."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shardline_common.job.spec import JobSpec
from tests.benchmarks.aims.rounds import Aim, Figures, Options
from tests.benchmarks.common import usage, write_corpus
from tests.e2e.system import running_system
from tests.make import job
from tests.services import S3, kafka_address, s3_store

AIMS = (Aim("one job, two slices: speed-up of two producers", "speed-up", "times", bound=1.7, least=True),)
PRODUCERS = 2
_SECONDS = 900


class Slices:
    """The speed-up is the CPU of one producer by that of the busier of two: with a core each, the time."""

    aims = AIMS

    @contextmanager
    def measuring(self, folder: Path, options: Options) -> Iterator[Callable[[int], Figures]]:
        """Start the servers. A job without slices measures nothing."""
        if "slices" not in JobSpec.model_fields:
            yield lambda _: {}
            return
        path = folder / "corpus.jsonl"
        write_corpus(path, options.documents)
        with kafka_address(folder / "kafka") as kafka, s3_store(folder / "s3") as s3:

            def once(number: int) -> Figures:
                cpu = []
                for producers in (1, PRODUCERS):
                    place = folder / f"{number}-{producers}"
                    place.mkdir()
                    cpu.append(asyncio.run(busiest(place, path, kafka, s3, producers)))
                return {"speed-up": cpu[0] / cpu[1]}

            yield once


async def busiest(folder: Path, path: Path, kafka: str, s3: S3, producers: int) -> float:
    """CPU-seconds of the busiest of the producers of a job with a slice for each."""
    env = {"SHARDLINE_TOPIC_LIMIT_BYTES": str(8 << 30)}
    async with running_system(folder, kafka, s3, path.parent, **env) as system:
        processes = [system.start("producer") for _ in range(producers)]
        for process in processes:
            await process.until_ready()
        before = [usage(process.popen.pid)[0] for process in processes]
        source = {"type": "files", "paths": [path.name]}
        await system.submit(job(job_id="bench", name="bench", source=source, slices=producers))
        await system.until("bench", lambda view: view.state.state == "completing", _SECONDS)
        after = [usage(process.popen.pid)[0] for process in processes]
    return max(end - begin for begin, end in zip(before, after, strict=True))
