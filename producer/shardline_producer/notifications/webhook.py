"""The webhook: posts notifications to one URL, signed by Standard Webhooks, and retries failed posts."""

import base64
import binascii
import hmac
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from yarl import URL

from shardline_common import __version__
from shardline_common.errors import UsageError
from shardline_common.http.client import HttpClient, HttpConnectionError, HttpOptions, HttpRequest, open_http
from shardline_common.http.urls import encoded, origin
from shardline_common.ports.clock import Clock
from shardline_common.runtime.durations import in_seconds
from shardline_common.runtime.retry import Backoff
from shardline_common.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)
_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
_BACKOFF = Backoff(base=0.5, cap=300.0)
_GONE = 410
_HINT = (
    "check that it runs, responds with 2xx within the time-out and has the same secret; "
    "`shardline status` shows how the job ended"
)


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """The URL, the signing key and the time limits. The URL may hold a secret and is never shown.

    `retry_seconds`: the age at which an undelivered notification is discarded. `timeout` limits one attempt,
    in seconds.
    """

    url: str = field(repr=False)
    key: bytes = field(repr=False)
    retry_seconds: float = 86_400.0
    timeout: float = 15.0
    ca_file: str | None = None

    @property
    def address(self) -> str:
        """Scheme, host and port, for messages."""
        return origin(self.url)


def checked_url(url: str, *, allow_http: bool) -> str:
    """Return the URL if notifications may be sent to it.

    Raises:
        UsageError: it is not an HTTP URL, holds credentials, or is http:// to another machine without
            `allow_http`.
    """
    name = "SHARDLINE_WEBHOOK_URL"
    try:
        parsed = URL(url)
        host = parsed.host
    except ValueError:
        host = None
    if host is None or parsed.scheme not in ("http", "https"):
        raise UsageError(
            f"{name} is no URL", hint=f"set {name} to a URL such as https://hooks.example.org/shardline"
        )
    if parsed.user is not None or parsed.password is not None:
        raise UsageError(f"{name} holds credentials", hint="leave them out: the signature proves the sender")
    if parsed.scheme == "http" and not (allow_http or _is_loopback(host)):
        hint = "use https, or set SHARDLINE_WEBHOOK_ALLOW_HTTP=true where the network can be trusted"
        raise UsageError(f"{name}: http:// to {host} can be read and changed on the network", hint=hint)
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def signing_key(secret: str) -> bytes:
    """The signing key of a secret (whsec_ and base64, as Standard Webhooks).

    Raises:
        UsageError: the secret is not of that form; the message does not contain it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _KEY_BYTES:
        raise UsageError(
            "SHARDLINE_WEBHOOK_SECRET is not whsec_ and 24 to 64 bytes in base64",
            hint='make a secret with: echo "whsec_$(openssl rand -base64 32)"',
        )
    return key


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature` of a message."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


class Webhook:
    """Implements `Receiver` over HTTP. Safe for concurrent use."""

    def __init__(self, client: HttpClient, options: WebhookOptions, clock: Clock, metrics: Metrics) -> None:
        self._client = client
        self._options = options
        self._clock = clock
        self._metrics = metrics

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Post until the response is 2xx or `retry_seconds` are over. Each attempt is signed anew."""
        started, failures = self._clock.monotonic(), 0
        while (failure := await self._post(message_id, body)) is not None:
            failures += 1
            pause = max(failure.pause, _BACKOFF.pause(failures))
            elapsed = self._clock.monotonic() - started
            if failure.final or elapsed + pause > self._options.retry_seconds:
                self._discard(message_id, failure, failures)
                return
            self._metrics.webhook("failed")
            _log.warning(
                "webhook %s: %s: %s; trying again %s",
                message_id,
                self._options.address,
                failure.reason,
                in_seconds(pause),
            )
            await self._clock.sleep(pause)
        self._metrics.webhook("delivered")
        _log.info("webhook %s: delivered to %s", message_id, self._options.address)

    def _discard(self, message_id: str, failure: "_FailedPost", attempts: int) -> None:
        self._metrics.webhook("given_up")
        _log.error(
            "webhook %s: given up after %d attempts: %s: %s; %s",
            message_id,
            attempts,
            self._options.address,
            failure.reason,
            _HINT,
        )

    async def _post(self, message_id: str, body: bytes) -> "_FailedPost | None":
        timestamp = int(self._clock.now().timestamp())
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._options.key, message_id, timestamp, body),
        }
        request = HttpRequest("POST", body=body, headers=headers, ignore_body=True)
        try:
            response = await self._client.send(request)
        except HttpConnectionError as error:
            return _FailedPost(error.detail)
        if 200 <= response.status < 300:  # noqa: PLR2004 - 2xx
            return None
        pause = _seconds(response.retry_after)
        return _FailedPost(f"it answers {response.status}", pause, final=response.status == _GONE)


@dataclass(frozen=True, slots=True)
class _FailedPost:
    """A failed attempt. `pause`: the seconds of Retry-After; `final`: a further attempt is useless (410)."""

    reason: str
    pause: float = 0.0
    final: bool = False


def _seconds(retry_after: str) -> float:
    # A date is ignored: the pauses of the back-off suffice.
    return min(float(retry_after), _BACKOFF.cap) if retry_after.isascii() and retry_after.isdigit() else 0.0


@asynccontextmanager
async def open_webhook(options: WebhookOptions, clock: Clock, metrics: Metrics) -> AsyncIterator[Webhook]:
    """A webhook; leaving the context closes its connections.

    Raises:
        UsageError: the CA file cannot be read.
    """
    # Redirects are not followed: a message that is signed for one address must go to no other.
    http = HttpOptions(
        url=encoded(options.url),
        headers={"Content-Type": "application/json", "User-Agent": f"shardline/{__version__}"},
        ca_file=options.ca_file,
        connect_seconds=None,
        read_seconds=None,
        total_seconds=options.timeout,
    )
    async with open_http(http) as client:
        yield Webhook(client, options, clock, metrics)
