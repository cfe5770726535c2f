"""producer, worker and gateway: the long-running processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import Port, complete, settings

if TYPE_CHECKING:
    from shardline_common.settings.load import Settings


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: KAFKA_BOOTSTRAP_SERVERS=kafka:9092 S3_BUCKET=data shardline producer")(
        producer
    )
    app.command(epilog="Example: KAFKA_BOOTSTRAP_SERVERS=kafka:9092 S3_BUCKET=data shardline worker")(worker)
    app.command(epilog="Example: KEYCLOAK_URL=https://keycloak S3_BUCKET=data shardline gateway")(gateway)


def producer(metrics_port: Port = None) -> None:
    """Read jobs from Kafka and stream the documents of each into a topic. Any number of producers can run."""
    found = settings(metrics_port=metrics_port)
    _run("producer", found)


def worker(metrics_port: Port = None) -> None:
    """Filter documents and write them as shards to S3. Any number of workers can run."""
    found = settings(metrics_port=metrics_port)
    _run("worker", found)


def gateway(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port of API and pages; 0: any free.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    metrics_port: Port = None,
) -> None:
    """Serve Clara's dataset API over HTTP, and HTML pages that show the jobs."""
    found = settings(gateway_port=port, gateway_host=host, metrics_port=metrics_port)
    _run("gateway", found)


def _run(kind: str, found: Settings) -> None:
    from shardline.services.wiring.tracing import traced

    with traced(found, kind):
        complete(_serve(kind, found))


async def _serve(kind: str, found: Settings) -> None:
    from shardline.services.processes import serve_producer, serve_worker
    from shardline_common.runtime.failpoints import arm
    from shardline_common.runtime.lifecycle import run_until_stopped

    arm(os.environ)
    serve = serve_producer if kind == "producer" else serve_worker
    if kind == "gateway":
        from shardline.gateway.server import serve_gateway

        serve = serve_gateway
    await run_until_stopped(lambda: serve(found), found.shutdown_grace_seconds)
