"""Checks the query of a job against its source before the job is submitted."""

import asyncio
import contextlib

from shardline.services.plan_scratch import ScratchPlanPages
from shardline_common.errors import SourceUnavailable
from shardline_common.job.spec import JobSpec
from shardline_producer.sources.planned import PlannedSource
from shardline_producer.sources.source import OpenSource

_CHECK_SECONDS = 10.0


async def check_query(spec: JobSpec, open_source: OpenSource) -> None:
    """Check what planning checks first: fields of filters, searches, tables. Nothing is searched.

    A source that cannot be reached, or not in ten seconds, is not a fault of the query: the job will wait for
    it.

    Raises:
        JobFailed: the query or the source is wrong, as the planning of the job would say.
    """
    with contextlib.suppress(SourceUnavailable, TimeoutError):
        async with asyncio.timeout(_CHECK_SECONDS), ScratchPlanPages() as pages:
            source = open_source(spec, pages)
            if isinstance(source, PlannedSource):
                await source.describe()
