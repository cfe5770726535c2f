"""Which requests are accepted and which refused: tokens, roles, modes, origins, hosts."""

import base64
import hmac
import json
import os
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest
import requests

from tests.gateway.conftest import guarded
from tests.gateway.realm import Realm, running_realm
from tests.gateway.system import SECONDS, Server, body, ended, eventually, running

DATASETS, STREAM = "/api/datasets", "/api/datasets/stream"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def encoded(part: dict[str, Any]) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")


def unsigned(realm: Realm) -> str:
    """A token with `alg: none`."""
    return (
        encoded({"alg": "none", "kid": "first"}) + b"." + encoded(realm.claims(["admin"])) + b"."
    ).decode()


def confused(realm: Realm) -> str:
    """A token signed with HS256 and the public key as the secret."""
    signed = encoded({"alg": "HS256", "kid": "first"}) + b"." + encoded(realm.claims(["admin"]))
    signature = hmac.new(realm.public_pem(), signed, sha256).digest()
    return (signed + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def foreign(realm: Realm) -> str:
    """A token signed with another realm's key, under the id of a key of this realm."""
    other = Realm()
    return jwt.encode(realm.claims(["admin"]), other.keys["first"], "RS256", headers={"kid": "first"})


def opened(server: Server, call: requests.Response) -> bool:
    """Whether a call opened a source: its log lines have its request id, and the last one is `answered`."""
    own = call.headers["X-Request-ID"]
    eventually(lambda: any('"answered"' in line for line in server.lines(own)))
    return any('"source opened"' in line for line in server.lines(own))


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (lambda realm: realm.token("admin", exp=int(time.time()) - 60), "expired"),
        (lambda realm: realm.token("admin", aud="another"), "audience"),
        (lambda realm: realm.token("admin", iss="https://elsewhere/realms/vcc"), "issuer"),
        (lambda realm: realm.token("admin", exp=None), "not valid"),
        (lambda realm: realm.token("admin", sub=None), "not valid"),
        (unsigned, "RS256"),
        (confused, "RS256"),
        (foreign, "not valid"),
        (lambda realm: realm.token("admin")[:-4] + "AAAA", "not valid"),
        (lambda _: "not.a.token", "not a JWT"),
        (lambda _: "x" * 20_000, "too long"),
        (lambda _: "", "a token is needed"),
    ],
    ids=[
        "expired", "audience", "issuer", "no-expiry", "no-subject", "alg-none", "hs256-public-key",
        "foreign-key", "forged", "garbage", "huge", "empty",
    ],
)  # fmt: skip
def test_a_wrong_token_is_refused(secure: Server, realm: Realm, make: Any, detail: str) -> None:
    headers = bearer(make(realm))
    for call in (
        requests.get(secure.url + DATASETS, headers=headers, timeout=SECONDS),
        requests.post(secure.url + STREAM, json=body(), headers=headers, timeout=SECONDS),
    ):
        assert call.status_code == 401
        assert call.headers["WWW-Authenticate"].startswith("Bearer")
        assert detail in call.json()["detail"]
        assert not opened(secure, call)


def test_no_token_is_refused(secure: Server) -> None:
    for method, path in (
        ("GET", DATASETS),
        ("POST", DATASETS),
        ("POST", STREAM),
        ("GET", f"{DATASETS}/x"),
        ("DELETE", f"{DATASETS}/x"),
        ("POST", f"{DATASETS}/x/export"),
        ("GET", f"{DATASETS}/x/events"),
        ("GET", "/api/events"),
        ("GET", f"{DATASETS}/x/files"),
        ("GET", f"{DATASETS}/x/files/manifest.json"),
    ):
        content = {"format": "csv"} if path.endswith("export") else body()
        response = requests.request(method, secure.url + path, json=content, timeout=SECONDS)
        assert response.status_code == 401, (method, path, response.text)
    assert requests.get(f"{secure.url}/health", timeout=SECONDS).status_code == 200


def test_roles_decide(secure: Server, realm: Realm) -> None:
    def call(method: str, path: str, *roles: str, **options: Any) -> requests.Response:
        headers = bearer(realm.token(*roles))
        return requests.request(method, secure.url + path, headers=headers, timeout=SECONDS, **options)

    for roles in ((), ("viewer",), ("Admin",)):
        assert call("POST", STREAM, *roles, json=body()).status_code == 403
        assert call("GET", DATASETS, *roles).status_code == 403
    for role in ("admin", "trainer", "analyst"):
        streamed = call("POST", STREAM, role, json=body(top_k=5))
        assert streamed.status_code == 200
        assert opened(secure, streamed)
    made = call("POST", DATASETS, "analyst", json=body(top_k=20))
    assert made.status_code == 200
    assert made.json()["data"]["created_by"] == "erika@example.org"
    dataset_id = made.json()["dataset_id"]
    assert ended(secure.url, dataset_id, headers=bearer(realm.token("analyst")))["status"] == "completed"
    export = f"{DATASETS}/{dataset_id}/export"
    assert call("POST", export, "analyst", json={"format": "csv"}).status_code == 403
    exported = call("POST", export, "trainer", json={"format": "csv"})
    assert exported.status_code == 200
    # The link works without a token, and only unchanged.
    link = secure.url + exported.json()["download_url"]
    assert requests.get(link, timeout=SECONDS).status_code == 200
    assert requests.get(link.replace("/exports/", "/exports/x"), timeout=SECONDS).status_code == 403
    assert requests.get(link[:-1] + ("0" if link[-1] != "0" else "1"), timeout=SECONDS).status_code == 403
    assert requests.get(link.replace("expires=1", "expires=2"), timeout=SECONDS).status_code == 403
    purge = f"{DATASETS}/{dataset_id}?purge=true"
    assert call("DELETE", purge, "analyst").status_code == 403
    assert call("DELETE", purge, "admin").status_code == 200


def test_the_audit_log_names_the_user_and_no_secret(secure: Server, realm: Realm) -> None:
    token = realm.token("trainer")
    headers = bearer(token) | {"X-Request-ID": "audited-1"}
    requests.post(
        secure.url + STREAM, json=body("Geheimsache"), headers=headers, timeout=SECONDS
    ).raise_for_status()
    requests.get(secure.url + DATASETS, headers={"X-Request-ID": "audited-2"}, timeout=SECONDS)
    # A stream is recorded when its last byte is sent: the client may have it before.
    eventually(lambda: secure.audited("audited-1", "complete") and secure.audited("audited-2", "401"))
    lines = [json.loads(line) for line in secure.audit().splitlines()]
    by_id = {line["request_id"]: line for line in lines}
    assert by_id["audited-1"] | {"at": "", "seq": 0, "previous": ""} == {
        "at": "",
        "seq": 0,
        "previous": "",
        "roles": ["trainer"],
        "request_id": "audited-1",
        "user_id": "user-1",
        "user": "erika@example.org",
        "action": "stream",
        "outcome": "complete",
        "dataset": "Baurecht Dach",
        "rows": 717,
        "read": 1000,
        "rejected": {"below_min_score": 252, "empty": 31},
        "dead": {},
    }
    assert (by_id["audited-2"]["outcome"], by_id["audited-2"]["user"]) == ("401", None)
    assert "Geheimsache" not in secure.audit() + secure.text()
    assert token not in secure.audit() + secure.text()


def test_unknown_key_ids_do_not_cause_a_fetch_each(realm: Realm, tmp_path: Path) -> None:
    with running(tmp_path, **guarded(realm)) as server:
        url = server.url + DATASETS
        assert requests.get(url, headers=bearer(realm.token("admin")), timeout=SECONDS).status_code == 200
        asked = realm.requests
        other = Realm()
        other.url = realm.url
        for number in range(20):
            other.keys[f"made-up-{number}"] = other.keys["first"]
            token = other.token("admin", kid=f"made-up-{number}")
            assert requests.get(url, headers=bearer(token), timeout=SECONDS).status_code == 401
        assert realm.requests - asked <= 1


def test_no_token_is_accepted_while_the_realm_is_away(tmp_path: Path) -> None:
    with running_realm() as realm, running(tmp_path, **guarded(realm)) as server:
        realm.away = True
        url, headers = server.url + DATASETS, bearer(realm.token("admin"))
        for _ in range(3):
            response = requests.get(url, headers=headers, timeout=SECONDS)
            assert response.status_code == 503
            assert response.headers["Retry-After"]
        assert requests.get(f"{server.url}/health", timeout=SECONDS).status_code == 200


def test_the_sign_in_form_sets_an_http_only_cookie(secure: Server, realm: Realm) -> None:
    html = {"Accept": "text/html"}
    asked = requests.get(secure.url, headers=html, timeout=SECONDS)
    assert asked.status_code == 401
    assert "Sign in" in asked.text
    assert asked.headers["Content-Security-Policy"].startswith("default-src 'self'")
    proxied = requests.get(secure.url, headers=html | bearer(realm.token("analyst")), timeout=SECONDS)
    assert "<h1>Jobs</h1>" in proxied.text
    browser = requests.Session()
    browser.headers.update(html)
    origin = {"Origin": secure.url}
    form = {"token": realm.token("analyst")}
    signed = browser.post(f"{secure.url}/sign-in", data=form, headers=origin, timeout=SECONDS)
    assert signed.status_code == 200
    assert "<h1>Jobs</h1>" in signed.text
    cookie = signed.history[0].headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    # With the cookie, a change needs the gateway's own origin.
    cancel = f"{secure.url}/jobs/none/cancel"
    assert browser.post(cancel, timeout=SECONDS).status_code == 403
    assert (
        browser.post(cancel, headers={"Origin": "https://evil.example"}, timeout=SECONDS).status_code == 403
    )
    assert browser.post(cancel, headers=origin, timeout=SECONDS).status_code == 404
    assert requests.post(f"{secure.url}/sign-in", data={"token": "x"}, timeout=SECONDS).status_code == 401


def start(**env: str) -> subprocess.CompletedProcess[str]:
    """`shardline gateway` with these settings, which must not start."""
    return subprocess.run(
        [sys.executable, "-m", "shardline", "gateway", "--port", "0", "--metrics-port", "0"],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_production_without_tokens_does_not_start() -> None:
    refused = start(CLARA_SECURITY_MODE="production", CLARA_JWT_ENABLED="false")
    assert refused.returncode == 2
    assert "CLARA_SECURITY_MODE" in refused.stderr
    assert "CLARA_JWT_ENABLED" in refused.stderr
    no_keycloak = start(CLARA_SECURITY_MODE="production")
    assert no_keycloak.returncode == 2
    assert "KEYCLOAK_URL" in no_keycloak.stderr


@pytest.mark.parametrize("mode", ["development", "debug", "testing"])
def test_other_modes_warn_and_listen_on_loopback(tmp_path: Path, mode: str) -> None:
    env = {
        "CLARA_SECURITY_MODE": mode,
        "CLARA_JWT_ENABLED": "false",
        "DEBUG_USER_ID": "d-1",
        "DEBUG_USER_EMAIL": "dora@example.org",
        "DEBUG_USER_ROLES": "analyst, viewer",
    }
    with running(tmp_path, **env) as server:
        server.until_logged("warning.*NO TOKEN IS REQUIRED.*dora@example.org")
        server.until_logged("serving on http://127.0.0.1:")
        made = requests.post(server.url + DATASETS, json=body(top_k=1), timeout=SECONDS).json()
        assert made["data"]["created_by"] == "dora@example.org"
        ended(server.url, made["dataset_id"])
        export = f"{server.url}{DATASETS}/{made['dataset_id']}/export"
        assert requests.post(export, json={"format": "csv"}, timeout=SECONDS).status_code == 403
        # A page that uses DNS rebinding sends its own host name: such a request is refused.
        rebound = requests.get(server.url + DATASETS, headers={"Host": "evil.example"}, timeout=SECONDS)
        assert rebound.status_code == 403
        foreign = {"Origin": "https://evil.example"}
        assert (
            requests.post(server.url + STREAM, json=body(), headers=foreign, timeout=SECONDS).status_code
            == 403
        )


def test_cors_is_off_by_default(tmp_path: Path, gateway: Server) -> None:
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    closed = requests.options(gateway.url + STREAM, headers=asked, timeout=SECONDS)
    assert "Access-Control-Allow-Origin" not in closed.headers
    with running(tmp_path, GATEWAY_CORS_ORIGINS="https://page.example") as server:
        opened = requests.options(server.url + STREAM, headers=asked, timeout=SECONDS)
        assert opened.headers["Access-Control-Allow-Origin"] == "https://page.example"
        origin = {"Origin": "https://page.example"}
        assert (
            requests.post(server.url + STREAM, json=body(), headers=origin, timeout=SECONDS).status_code
            == 200
        )
        other = requests.post(
            server.url + STREAM, json=body(), headers={"Origin": "https://x.example"}, timeout=SECONDS
        )
        assert other.status_code == 403
