"""Tokens for SASL OAUTHBEARER, by the client credentials grant of OAuth 2.0."""

import asyncio
import ssl
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import orjson
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from shardline_common.errors import BrokerUnavailable, UsageError

_SECONDS = 10.0
_LIFETIME_UNSAID = 60.0
_RENEW_AT = 0.8
_MOST_BYTES = 1 << 20
_HINT = (
    "check KAFKA_SASL_OAUTHBEARER_TOKEN_URL, KAFKA_SASL_OAUTHBEARER_CLIENT_ID, "
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET and KAFKA_SASL_OAUTHBEARER_SCOPE"
)


@dataclass(frozen=True, slots=True)
class OAuthOptions:
    """The endpoint that gives tokens, and the client we are there."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None
    ca_file: str | None = None

    def tls(self) -> ssl.SSLContext:
        """Trust for the endpoint.

        Raises:
            UsageError: the CA bundle cannot be read.
        """
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise UsageError(
                f"KAFKA_SASL_OAUTHBEARER_CAFILE: {self.ca_file} cannot be used: {error}"
            ) from None


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """Gives the token that every connection of this process shows; a new one well before it ends."""

    def __init__(self, options: OAuthOptions) -> None:
        self._options = options
        self._asking = asyncio.Lock()
        self._token = ""
        self._renew_at = 0.0

    def check(self) -> None:
        """Raise UsageError where the endpoint can never be asked."""
        self._options.tls()

    async def token(self) -> str:
        """For the client, which takes its own kind of error for a connection that failed."""
        try:
            return await self.current()
        except BrokerUnavailable as error:
            raise KafkaConnectionError(str(error)) from error

    async def current(self) -> str:
        """A token that is good for some time yet.

        Raises:
            BrokerUnavailable: the endpoint is away, or refuses the client.
        """
        async with self._asking:
            if not self._token or time.monotonic() >= self._renew_at:
                asked_at = time.monotonic()
                self._token, lifetime = await self._ask()
                self._renew_at = asked_at + _RENEW_AT * lifetime
            return self._token

    async def _ask(self) -> tuple[str, float]:
        try:
            status, body = await self._post()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, UsageError) as error:
            raise self._unavailable(type(error).__name__) from error
        token = body.get("access_token")
        if status != 200 or not isinstance(token, str) or not token:  # noqa: PLR2004 - OK
            raise self._unavailable(f"{status} {str(body.get('error', ''))[:100]}".strip())
        lifetime = body.get("expires_in")
        return token, float(lifetime) if isinstance(lifetime, int | float) else _LIFETIME_UNSAID

    async def _post(self) -> tuple[int, dict[str, Any]]:
        options = self._options
        form = {"grant_type": "client_credentials"} | ({"scope": options.scope} if options.scope else {})
        # RFC 6749 wants both form-encoded before they are joined.
        pair = f"{quote_plus(options.client_id)}:{quote_plus(options.client_secret)}"
        headers = {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
        limit = aiohttp.ClientTimeout(total=_SECONDS)
        async with (
            aiohttp.ClientSession(
                timeout=limit, connector=aiohttp.TCPConnector(ssl=options.tls())
            ) as session,
            session.post(options.token_url, data=form, headers=headers, allow_redirects=False) as answer,
        ):
            body = orjson.loads(await answer.content.read(_MOST_BYTES))
            return answer.status, body if isinstance(body, dict) else {}

    def _unavailable(self, why: str) -> BrokerUnavailable:
        about = f"{self._options.token_url} gives no token for Kafka ({why})"
        return BrokerUnavailable(about, hint=_HINT)
