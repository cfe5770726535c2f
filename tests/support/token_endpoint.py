"""The part of an identity provider that Kafka uses: tokens for clients, keys for brokers."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote_plus

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.support.listening import QuietHandler, listening

AUDIENCE, ISSUER, SCOPE = "kafka", "https://issuer.example", "shardline"


class TokenEndpoint:
    """Knows `clients` by id; `given` counts tokens; `lifetime` (s) and `audience` are of the next."""

    def __init__(self) -> None:
        self.clients: dict[str, str] = {}
        self.given = 0
        self.lifetime = 300
        self.audience = AUDIENCE
        self.url = ""
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def keys(self) -> bytes:
        """The JWKS document."""
        key = json.loads(RSAAlgorithm.to_jwk(self._key.public_key()))
        return json.dumps({"keys": [key | {"kid": "one", "alg": "RS256", "use": "sig"}]}).encode()

    def answer(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, dict[str, object]]:
        """The response to a client's request for a token: RFC 6749, section 4.4."""
        pair = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        client, secret = (unquote_plus(part) for part in pair.split(":", 1))
        if self.clients.get(client) != secret:
            return 401, {"error": "invalid_client"}
        if form.get("grant_type") != ["client_credentials"] or form.get("scope") != [SCOPE]:
            return 400, {"error": "invalid_request"}
        self.given += 1
        now = int(time.time())
        claims: dict[str, str | int] = {"iss": ISSUER, "aud": self.audience, "sub": client, "scope": SCOPE}
        claims |= {"iat": now, "exp": now + self.lifetime}
        token = jwt.encode(claims, self._key, "RS256", headers={"kid": "one"})
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}


@contextmanager
def running_endpoint() -> Iterator[TokenEndpoint]:
    """Serve /token and /keys on a free port."""
    endpoint = TokenEndpoint()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            self._send(200, endpoint.keys())

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            status, body = endpoint.answer(self.headers["Authorization"], form)
            self._send(status, json.dumps(body).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

    with listening(Handler) as port:
        endpoint.url = f"http://127.0.0.1:{port}"
        yield endpoint
