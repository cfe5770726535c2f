"""Tokens for SASL OAUTHBEARER, by the client credentials grant of OAuth 2.0."""

import asyncio
import time
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

import orjson
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from shardline_common.errors import BrokerUnavailable, UsageError
from shardline_common.http.client import (
    OK,
    HttpConnectionError,
    HttpOptions,
    HttpRequest,
    ResponseTooLarge,
    open_http,
)
from shardline_common.http.tls import tls_context
from shardline_common.http.urls import encoded

_SECONDS = 10.0
_DEFAULT_LIFETIME = 60.0
_RENEW_AT = 0.8
_MAX_BYTES = 1 << 20
_HINT = (
    "check KAFKA_SASL_OAUTHBEARER_TOKEN_URL, KAFKA_SASL_OAUTHBEARER_CLIENT_ID, "
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET and KAFKA_SASL_OAUTHBEARER_SCOPE"
)


@dataclass(frozen=True, slots=True)
class OAuthOptions:
    """A token endpoint and the client's credentials there."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str | None = None
    ca_file: str | None = None

    def check(self) -> None:
        """Raise UsageError when the CA bundle cannot be read."""
        try:
            tls_context(self.ca_file)
        except UsageError as error:
            raise UsageError(f"KAFKA_SASL_OAUTHBEARER_CAFILE: {error}") from None

    @property
    def http(self) -> HttpOptions:
        """The options of the endpoint's client."""
        # RFC 6749 requires both to be form-encoded before they are joined.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
        return HttpOptions(
            url=encoded(self.token_url),
            headers={
                "Authorization": f"Basic {b64encode(pair.encode()).decode()}",
                "Content-Type": "application/x-www-form-urlencoded",
            },
            ca_file=self.ca_file,
            total_seconds=_SECONDS,
            max_bytes=_MAX_BYTES,
            ends_by_close=True,
        )


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    """Provides the token for every connection of this process, and renews it before it expires."""

    def __init__(self, options: OAuthOptions) -> None:
        self._options = options
        self._lock = asyncio.Lock()
        self._token = ""
        self._renew_at = 0.0

    def check(self) -> None:
        """Raise UsageError when the CA bundle cannot be read."""
        self._options.check()

    async def token(self) -> str:
        """The token, for aiokafka. Raises KafkaConnectionError, by which a connection of aiokafka fails."""
        try:
            return await self.current()
        except BrokerUnavailable as error:
            raise KafkaConnectionError(str(error)) from error

    async def current(self) -> str:
        """A token that has at least a fifth of its lifetime left.

        Raises:
            BrokerUnavailable: the endpoint cannot be reached, or refuses the client.
        """
        async with self._lock:
            if not self._token or time.monotonic() >= self._renew_at:
                requested_at = time.monotonic()
                self._token, lifetime = await self._request()
                self._renew_at = requested_at + _RENEW_AT * lifetime
            return self._token

    async def _request(self) -> tuple[str, float]:
        options = self._options
        form = {"grant_type": "client_credentials"} | ({"scope": options.scope} if options.scope else {})
        request = HttpRequest("POST", body=urlencode(form).encode())
        try:
            async with open_http(options.http) as client:
                response = await client.send(request)
            body = orjson.loads(response.body)
        except HttpConnectionError as error:
            raise self._unavailable(error.detail) from error
        except (ResponseTooLarge, ValueError, UsageError) as error:
            raise self._unavailable(type(error).__name__) from error
        fields = body if isinstance(body, dict) else {}
        token, lifetime = fields.get("access_token"), fields.get("expires_in")
        if response.status != OK or not isinstance(token, str) or not token:
            raise self._unavailable(f"{response.status} {str(fields.get('error', ''))[:100]}".strip())
        return token, float(lifetime) if isinstance(lifetime, int | float) else _DEFAULT_LIFETIME

    def _unavailable(self, why: str) -> BrokerUnavailable:
        return BrokerUnavailable(f"{self._options.token_url} gives no token for Kafka ({why})", hint=_HINT)
