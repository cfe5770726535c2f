"""The webhook: posts to one URL, signed as Standard Webhooks says, until they are taken or given up."""

import base64
import binascii
import hmac
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import aiohttp
from yarl import URL

from shardline_common import __version__
from shardline_common.errors import UsageError
from shardline_common.http.tls import tls_context
from shardline_common.ports.clock import Clock
from shardline_common.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)
_PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
_LONGEST_PAUSE = 300.0
_GONE = 410
_HINT = (
    "see that it runs, answers 2xx within the time-out and knows the secret; "
    "`shardline status` shows how the job ended"
)


@dataclass(frozen=True, slots=True)
class WebhookOptions:
    """Where to, signed with what, how patiently (seconds). The URL may hold a secret: it is not shown."""

    url: str = field(repr=False)
    key: bytes = field(repr=False)
    patience: float = 86_400.0
    timeout: float = 15.0
    ca_file: str | None = None

    @property
    def place(self) -> str:
        """Scheme, host and port, for messages."""
        return str(URL(self.url).origin())


def checked_url(url: str, *, allow_http: bool) -> str:
    """The URL, if posts may be sent there.

    Raises:
        UsageError: it is no URL of HTTP, holds credentials, or is open to readers on the way.
    """
    name = "SHARDLINE_WEBHOOK_URL"
    try:
        parsed = URL(url)
        host = parsed.host
    except ValueError:
        host = None
    if host is None or parsed.scheme not in ("http", "https"):
        raise UsageError(f"{name} is no URL", hint="such as https://hooks.example.org/shardline")
    if parsed.user is not None or parsed.password is not None:
        raise UsageError(f"{name} holds credentials", hint="leave them out: the signature tells who sends")
    if parsed.scheme == "http" and not (allow_http or _is_loopback(host)):
        hint = "use https, or set SHARDLINE_WEBHOOK_ALLOW_HTTP=true where the network can be trusted"
        raise UsageError(f"{name}: http:// to {host} can be read and changed on the way", hint=hint)
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def signing_key(secret: str) -> bytes:
    """The key of a secret as Standard Webhooks writes it.

    Raises:
        UsageError: it is none; the secret is not repeated.
    """
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _KEY_BYTES:
        raise UsageError(
            "SHARDLINE_WEBHOOK_SECRET is not whsec_ and 24 to 64 bytes in base64",
            hint='make one: echo "whsec_$(openssl rand -base64 32)"',
        )
    return key


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature` of a message."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


class Webhook:
    """Implements `Receiver` over HTTP. Safe for concurrent use."""

    def __init__(
        self, session: aiohttp.ClientSession, options: WebhookOptions, clock: Clock, metrics: Metrics
    ) -> None:
        self._session = session
        self._options = options
        self._clock = clock
        self._metrics = metrics

    async def deliver(self, message_id: str, body: bytes) -> None:
        """Post until the answer is 2xx, or patience is over; each try has a timestamp of its own."""
        started, tries = self._clock.monotonic(), 0
        while (fault := await self._post(message_id, body)) is not None:
            tries += 1
            pause = max(fault.pause, _pause(tries))
            over = self._clock.monotonic() - started + pause > self._options.patience
            if over or fault.final:
                self._give_up(message_id, fault, tries)
                return
            self._metrics.webhook("failed")
            _log.warning(
                "webhook %s: %s: %s; trying again in %.1f s",
                message_id,
                self._options.place,
                fault.what,
                pause,
            )
            await self._clock.sleep(pause)
        self._metrics.webhook("delivered")
        _log.info("webhook %s: %s was told", message_id, self._options.place)

    def _give_up(self, message_id: str, fault: "_Fault", tries: int) -> None:
        self._metrics.webhook("given_up")
        _log.error(
            "webhook %s: given up after %d tries: %s: %s; %s",
            message_id,
            tries,
            self._options.place,
            fault.what,
            _HINT,
        )

    async def _post(self, message_id: str, body: bytes) -> "_Fault | None":
        timestamp = int(self._clock.now().timestamp())
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._options.key, message_id, timestamp, body),
        }
        try:
            # A redirect is an answer like any other: what is signed for one place goes to no other.
            async with self._session.post(
                self._options.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                if 200 <= answer.status < 300:  # noqa: PLR2004 - 2xx
                    return None
                pause = _seconds(answer.headers.get("Retry-After", ""))
                return _Fault(f"it answers {answer.status}", pause, final=answer.status == _GONE)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return _Fault(f"{type(error).__name__}: {error}".removesuffix(": "))


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why a try was in vain, and how long the receiver wants to be left alone."""

    what: str
    pause: float = 0.0
    final: bool = False


def _pause(tries: int) -> float:
    # Full jitter: many messages that failed together must not come back together.
    return random.uniform(0.0, min(_LONGEST_PAUSE, 0.5 * 2 ** min(tries, 20)))  # noqa: S311 - jitter


def _seconds(retry_after: str) -> float:
    # A date is passed over: our own pauses do as well.
    return min(float(retry_after), _LONGEST_PAUSE) if retry_after.isascii() and retry_after.isdigit() else 0.0


@asynccontextmanager
async def open_webhook(options: WebhookOptions, clock: Clock, metrics: Metrics) -> AsyncIterator[Webhook]:
    """A webhook for as long as the context lasts.

    Raises:
        UsageError: the CA file cannot be read.
    """
    connector = aiohttp.TCPConnector(limit=8, ssl=tls_context(options.ca_file))
    headers = {"Content-Type": "application/json", "User-Agent": f"shardline/{__version__}"}
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=options.timeout),
        headers=headers,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield Webhook(session, options, clock, metrics)
