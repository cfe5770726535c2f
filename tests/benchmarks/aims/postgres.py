"""The producer from a table of PostgreSQL to a topic."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.dev.postgres import PASSWORD, USER
from deploy.dev.service import HOST
from tests.benchmarks.aims.kafka import produced
from tests.benchmarks.aims.rounds import Aim, Figures, Options
from tests.benchmarks.uds3 import fill, uds3_job
from tests.databases import Database, local_postgres
from tests.e2e.system import running_system
from tests.services import S3, kafka_address, s3_store

AIMS = (
    Aim("producer, PostgreSQL → Kafka", "producer", "CPU-s/M", bound=30),
    Aim("producer before", "producer before", "CPU-s/M"),
)


class FromPostgres:
    """One table, which a new producer reads in every round."""

    aims = AIMS

    @contextmanager
    def measuring(self, folder: Path, options: Options) -> Iterator[Callable[[int], Figures]]:
        """Start the servers and fill the table."""
        with (
            local_postgres(folder / "postgres") as server,
            kafka_address(folder / "kafka") as kafka,
            s3_store(folder / "s3") as s3,
        ):
            database = Database(HOST, server.ports["sql"], USER, PASSWORD)
            filled = asyncio.run(fill(database, "bench", options.documents))

            def once(number: int) -> Figures:
                place = folder / str(number)
                place.mkdir()
                found = {"producer": asyncio.run(produced_from(place, filled, kafka, s3, options.documents))}
                if options.before:
                    (earlier := folder / f"{number}-before").mkdir()
                    made = produced_from(earlier, filled, kafka, s3, options.documents, options.before)
                    found["producer before"] = asyncio.run(made)
                return found

            yield once


async def produced_from(
    folder: Path, database: Database, kafka: str, s3: S3, count: int, python: str = sys.executable
) -> float:
    """CPU-seconds per million documents, without the start of the process."""
    env = database.env | {"SHARDLINE_TOPIC_LIMIT_BYTES": str(8 << 30)}
    async with running_system(folder, kafka, s3, folder, **env) as system:
        system.python = python
        return await produced(system, uds3_job("bench")) / count * 1e6
