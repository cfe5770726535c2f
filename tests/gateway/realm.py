"""What the gateway needs of a Keycloak realm: a JWKS over HTTP, and tokens."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.support.listening import QuietHandler, listening

REALM = "vcc"
AUDIENCE = "clara"
_PATH = f"/realms/{REALM}/protocol/openid-connect/certs"


class Realm:
    """Signing keys by id. `requests` counts the fetches of the JWKS; while `away` is true they fail."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.requests = 0
        self.away = False
        self.url = ""
        self.add("first")

    def add(self, kid: str) -> None:
        """Add a signing key."""
        self.keys[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def document(self) -> bytes:
        """Return the JWKS."""
        keys = [
            json.loads(RSAAlgorithm.to_jwk(key.public_key())) | {"kid": kid, "alg": "RS256", "use": "sig"}
            for kid, key in self.keys.items()
        ]
        return json.dumps({"keys": keys}).encode()

    def claims(self, roles: list[str], **changes: Any) -> dict[str, Any]:
        """Return the claims of an access token of Keycloak."""
        claims = {
            "iss": f"{self.url}/realms/{REALM}",
            "aud": AUDIENCE,
            "sub": "user-1",
            "email": "erika@example.org",
            "exp": int(time.time()) + 300,
            "realm_access": {"roles": roles},
        }
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def token(self, *roles: str, kid: str = "first", **changes: Any) -> str:
        """Make a token signed with a key of the realm."""
        return jwt.encode(self.claims(list(roles), **changes), self.keys[kid], "RS256", headers={"kid": kid})

    def public_pem(self) -> bytes:
        """Return the public key as PEM."""
        return (
            self.keys["first"]
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )


@contextmanager
def running_realm() -> Iterator[Realm]:
    """Serve a realm on a free port."""
    realm = Realm()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            realm.requests += 1
            found = self.path == _PATH and not realm.away
            self.send_response(200 if found else 503)
            self.end_headers()
            self.wfile.write(realm.document() if found else b"")

    with listening(Handler) as port:
        realm.url = f"http://127.0.0.1:{port}"
        yield realm
