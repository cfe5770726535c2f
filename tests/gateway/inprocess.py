"""The gateway's application in the test's own process: no server, no port, a token is the name of a user."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message

from shardline.gateway.access_tokens import unauthorized
from shardline.gateway.app import make_app
from shardline.gateway.audit import AuditLog
from shardline.gateway.chunked_response import StreamOutcome
from shardline.gateway.context import GatewayContext
from shardline.gateway.dataset_reader import DatasetReader
from shardline.gateway.job_watcher import JobWatcher
from shardline.gateway.progress_texts import ProgressTexts
from shardline.gateway.public_text import PublicTexts
from shardline.gateway.rate_limits import RequestLimits
from shardline.gateway.signed_links import LinkSigner
from shardline.gateway.uds3_status import Uds3Status
from shardline.gateway.users import SecurityPolicy, User
from shardline_common.errors import SourceUnavailable
from shardline_common.job.names import CHECKPOINTS, JOBS
from shardline_common.job.spec import JobSpec, parse_message
from shardline_common.job.state import JobState, State, checkpoint
from shardline_common.memory.broker import MemoryBroker
from shardline_common.memory.store import MemoryStore
from shardline_common.runtime.clock import SYSTEM_CLOCK
from shardline_common.settings.load import Settings
from shardline_common.telemetry.metrics import Metrics
from shardline_producer.sources.source import PlanPages, Source
from shardline_producer.topics import ensure_system_topics

ISSUER = "https://sso.example.org/realms/vcc"
USERS = {
    "erika": User("user-1", "erika@example.org", frozenset({"trainer"}), ISSUER),
    "otto": User("user-2", "otto@example.org", frozenset({"trainer"}), ISSUER),
    "ina": User("user-3", "ina@example.org", frozenset({"analyst"}), ISSUER),
    "anna": User("user-4", "anna@example.org", frozenset({"admin"}), ISSUER),
    # The same subject of another realm is another user.
    "erika-elsewhere": User("user-1", "erika@example.org", frozenset({"trainer"}), "https://other/realms/x"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status, headers with names in lower case, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class _Verifier:
    async def verify(self, token: str) -> User:
        if token not in USERS:
            raise unauthorized("the token is not valid")
        return USERS[token]


@dataclass(slots=True)
class Gateway:
    """A gateway in memory."""

    app: ASGIApp
    context: GatewayContext
    broker: MemoryBroker
    store: MemoryStore
    audit_path: Path
    peer: str = "192.0.2.7"
    scheme: str = "http"
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def call(
        self,
        method: str,
        path: str,
        user: str | None = None,
        *,
        body: Any = None,
        form: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request and return the whole response."""
        sent = {"host": "gateway.example.org", **(headers or {})}
        content = b""
        if form is not None:
            content, sent["content-type"] = form.encode(), "application/x-www-form-urlencoded"
        elif body is not None:
            content, sent["content-type"] = json.dumps(body).encode(), "application/json"
        if user is not None:
            sent["authorization"] = f"Bearer {user}"
        target, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": self.scheme, "path": target, "raw_path": target.encode(), "root_path": "",
            "query_string": query.encode(), "client": (self.peer, 50_000), "server": ("127.0.0.1", 45_681),
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        }  # fmt: skip
        messages: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]
        received: list[Message] = []

        async def receive() -> Message:
            if messages:
                return messages.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            received.append(dict(message))

        async with asyncio.timeout(60):
            await self.app(scope, receive, send)
        head = {name.decode().lower(): value.decode() for name, value in received[0]["headers"]}
        return Answer(received[0]["status"], head, b"".join(part.get("body", b"") for part in received[1:]))

    def audit(self) -> list[dict[str, Any]]:
        """Return the lines of the audit log."""
        return [json.loads(line) for line in self.audit_path.read_text().splitlines()]

    async def accepted(self, spec: JobSpec, state: State, **fields: Any) -> None:
        """Publish the checkpoint of a job, as a producer does, and wait until the gateway has read it."""
        await self.broker.publish(CHECKPOINTS, [checkpoint(JobState(spec, state=state, **fields))])
        async with asyncio.timeout(60):
            while not any(
                view.state.spec.job_id == spec.job_id and view.state.state is state
                for view in self.context.jobs.jobs()
            ):
                await asyncio.sleep(0.01)

    async def messages(self) -> list[Any]:
        """Return all messages of dataset.jobs."""
        async with self.broker.table_reader(JOBS) as table:
            records = await table.catch_up(deadline=60.0)
        return [parse_message(record.value or b"") for record in records]


@asynccontextmanager
async def gateway_in_memory(folder: Path, **settings: Any) -> AsyncIterator[Gateway]:
    """Run a gateway on a memory broker. `open_source` says that the source is away."""
    found = Settings(**{"gateway_requests_per_minute": 100_000} | settings)
    broker, store, metrics = MemoryBroker(), MemoryStore(), Metrics()
    await ensure_system_topics(broker, 1)
    jobs = JobWatcher(broker, 1, SYSTEM_CLOCK)
    metrics.begin_streams(StreamOutcome)
    path = folder / "audit.jsonl"

    def open_source(_: JobSpec, __: PlanPages) -> Source:
        raise SourceUnavailable("the test's source is away")

    async def probe() -> None:
        return

    public = PublicTexts(found)
    context = GatewayContext(
        settings=found,
        clock=SYSTEM_CLOCK,
        metrics=metrics,
        security=SecurityPolicy(None, ISSUER, "clara"),
        token_verifier=_Verifier(),  # type: ignore[arg-type]
        audit_log=AuditLog(path, SYSTEM_CLOCK, on_action=metrics.acted),
        limits=RequestLimits.of(found, SYSTEM_CLOCK),
        link_signer=LinkSigner(b"key"),
        jobs=jobs,
        datasets=DatasetReader(store, folder),
        open_source=open_source,
        uds3=Uds3Status(probe, frozenset({"vector", "graph", "keyword"}), SYSTEM_CLOCK),
        public=public,
        progress=ProgressTexts(public),
        render_lock=asyncio.Lock(),
        port=45_681,
    )
    following = asyncio.create_task(jobs.run())
    try:
        async with asyncio.timeout(60):
            while jobs.unavailable_reason:
                await asyncio.sleep(0)
        yield Gateway(make_app(context), context, broker, store, path)
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
