"""The route `/health`, and the JSON of `/`."""

from fastapi import APIRouter

from shardline.gateway.context import Context
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
async def health(context: Context) -> Health:
    """Report which services can be reached. The status is 200 even when none can be reached."""
    uds3 = await context.uds3.latest()
    return Health(
        status="healthy",
        service=SERVICE,
        version=__version__,
        port=context.port,
        environment=context.settings.environment,
        uds3_available=uds3.reason is None,
        jobs_available=context.jobs.unavailable_reason is None,
        datasets_count=context.jobs.count,
        timestamp=stamp(context.clock),
        uds3_age_seconds=None if uds3.age is None else round(uds3.age, 1),
    )
