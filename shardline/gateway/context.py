"""The context of the gateway, shared by all routes."""

import asyncio
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from shardline.gateway.access_tokens import TokenVerifier
from shardline.gateway.audit import AuditLog
from shardline.gateway.dataset_reader import DatasetReader
from shardline.gateway.job_policy import JobPolicy
from shardline.gateway.job_watcher import JobWatcher
from shardline.gateway.ownership import Ownership
from shardline.gateway.problems import Problem
from shardline.gateway.progress_texts import ProgressTexts
from shardline.gateway.public_text import PublicTexts
from shardline.gateway.rate_limits import RequestLimits
from shardline.gateway.signed_links import LinkSigner
from shardline.gateway.uds3_status import Uds3Status
from shardline.gateway.users import SecurityPolicy, User
from shardline_common.job.spec import JobSpec
from shardline_common.ports.clock import Clock
from shardline_common.ports.store import ObjectStore
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.sources.source import OpenSource


@dataclass(frozen=True, slots=True)
class GatewayContext:
    """The objects that all routes share.

    Attributes:
        token_verifier: None when `security` has a debug user: then no token is needed.
        public: makes sentences for users: without the addresses and absolute paths of the installation.
        progress: makes the data of progress events.
        render_lock: held by a stream while it renders rows: streams render in turn.
        port: the port that the gateway listens on.
    """

    settings: Settings
    clock: Clock
    metrics: Metrics
    security: SecurityPolicy
    token_verifier: TokenVerifier | None
    audit_log: AuditLog
    limits: RequestLimits
    link_signer: LinkSigner
    jobs: JobWatcher
    datasets: DatasetReader
    open_source: OpenSource
    uds3: Uds3Status
    public: PublicTexts
    progress: ProgressTexts
    render_lock: asyncio.Lock
    port: int

    @property
    def ownership(self) -> Ownership:
        """Who may cancel, retry and purge a dataset."""
        return Ownership(self.settings.gateway_ownership)

    def check_job(self, spec: JobSpec, user: User) -> None:
        """Raise Problem (403) when a job names what it may not name through the gateway. It is recorded."""
        try:
            policy = JobPolicy.of(self.settings)
            policy.check(spec, user, lambda: (view.state.spec for view in self.jobs.jobs()))
        except Problem as problem:
            self.audit_log.record(user, "create", str(problem.status_code), dataset=spec.job_id)
            raise

    def require_store(self) -> ObjectStore:
        """Return the store of datasets. Raise Problem (503) when none is configured."""
        if self.datasets.store is None:
            raise Problem(503, "no store of datasets is configured: S3_BUCKET is not set")
        return self.datasets.store

    def download_link(self, dataset_id: str, file: str, user: User) -> str:
        """Return a link to a file for a user. It is valid without a token until it expires."""
        expires = int(self.clock.now().timestamp()) + self.settings.gateway_link_seconds
        return self.link_signer.link(dataset_id, file, expires, user.id)


async def context_of(request: Request) -> GatewayContext:
    """Return the context of the application. A coroutine, because FastAPI runs plain functions on threads."""
    context: GatewayContext = request.app.state.context
    return context


Context = Annotated[GatewayContext, Depends(context_of)]
"""The parameter type by which a route receives the context."""
