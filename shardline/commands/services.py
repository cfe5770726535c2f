"""producer and worker: the long-running processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shardline.commands.options import Port, complete, settings

if TYPE_CHECKING:
    import typer

    from common.settings import Settings


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: KAFKA_BOOTSTRAP_SERVERS=kafka:9092 S3_BUCKET=data shardline producer")(
        producer
    )
    app.command(epilog="Example: KAFKA_BOOTSTRAP_SERVERS=kafka:9092 S3_BUCKET=data shardline worker")(worker)


def producer(metrics_port: Port = None) -> None:
    """Take jobs from Kafka and stream their documents into a topic each. Start as many as you like."""
    found = settings(metrics_port=metrics_port)
    complete(_serve("producer", found))


def worker(metrics_port: Port = None) -> None:
    """Filter documents and land them as shards in S3. Start as many as you like."""
    found = settings(metrics_port=metrics_port)
    complete(_serve("worker", found))


async def _serve(kind: str, found: Settings) -> None:
    from common.failpoints import arm
    from common.lifecycle import run_until_stopped
    from shardline.serve import serve_producer, serve_worker

    arm(os.environ)
    serve = serve_producer if kind == "producer" else serve_worker
    await run_until_stopped(lambda: serve(found), found.shutdown_grace_seconds)
