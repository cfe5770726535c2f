"""The routes `/health` and, for programs, `/`."""

from fastapi import APIRouter

from shardline.gateway.context import Gate
from shardline.gateway.responses import Health, Root
from shardline_common import __version__
from shardline_common.runtime.clock import stamp

router = APIRouter(tags=["service"])
SERVICE = "clara_dataset_backend"
ROOT = Root(
    service=SERVICE,
    version=__version__,
    status="operational",
    endpoints={
        "health": "/health",
        "datasets": "/api/datasets",
        "create_dataset": "/api/datasets (POST)",
        "stream": "/api/datasets/stream (POST)",
        "description": "/openapi.json",
    },
)


@router.get("/health")
async def health(gate: Gate) -> Health:
    """Tell what can be reached; 200 as long as the gateway itself answers."""
    return Health(
        status="healthy",
        service=SERVICE,
        version=__version__,
        port=gate.port,
        environment=gate.settings.environment,
        uds3_available=await gate.uds3.trouble() is None,
        jobs_available=gate.watch.trouble is None,
        datasets_count=gate.watch.count,
        timestamp=stamp(gate.clock),
    )
