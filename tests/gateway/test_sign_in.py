"""The cookie of the sign-in form: `Secure` wherever the browser uses https, and removed by signing out."""

from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from shardline.gateway.authorization import COOKIE
from shardline.gateway.proxies import trusted_proxies
from shardline_common.errors import UsageError
from tests.gateway.inprocess import Answer, Gateway, gateway_in_memory

HTML = {"accept": "text/html"}
HTTP, HTTPS = {"origin": "http://gateway.example.org"}, {"origin": "https://gateway.example.org"}


def cookie(answer: Answer) -> SimpleCookie:
    return SimpleCookie(answer.headers["set-cookie"])


@pytest.mark.parametrize(
    ("scheme", "peer", "headers", "secure"),
    [
        ("https", "192.0.2.7", {}, True),
        ("http", "192.0.2.7", HTTP, False),
        # A proxy that ends TLS and does not say so.
        ("http", "192.0.2.7", HTTPS, True),
        # A proxy that says so, listed or not.
        ("http", "10.1.2.3", HTTP | {"x-forwarded-proto": "https"}, True),
        ("http", "10.9.0.1", HTTP | {"x-forwarded-proto": "https"}, True),
        ("http", "::ffff:10.1.2.3", HTTP | {"x-forwarded-proto": "https"}, True),
        ("http", "10.9.0.2", HTTP | {"x-forwarded-proto": "https"}, False),
        ("http", "::ffff:10.9.0.2", HTTP | {"x-forwarded-proto": "https"}, False),
        ("http", "192.0.2.7", HTTP | {"x-forwarded-proto": "https"}, False),
    ],
)
async def test_the_cookie_is_secure_where_the_browser_uses_https(
    tmp_path: Path, scheme: str, peer: str, headers: dict[str, str], secure: bool
) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        gateway.app = ProxyHeadersMiddleware(gateway.app, trusted_proxies("10.1.0.0/16, 10.9.0.1"))  # type: ignore[assignment, arg-type]
        gateway.scheme, gateway.peer = scheme, peer
        signed = await gateway.call("POST", "/sign-in", form="token=erika", headers=HTML | headers)
        assert signed.status == 303
        found = cookie(signed)[COOKIE]
        assert bool(found["secure"]) == secure
        assert found["httponly"]
        assert found["samesite"] == "strict"


async def signed_in(gateway: Gateway) -> dict[str, str]:
    """Sign in, and return the headers of the browser's next request."""
    signed = await gateway.call("POST", "/sign-in", form="token=erika", headers=HTML | HTTPS)
    return HTML | HTTPS | {"cookie": f"{COOKIE}={cookie(signed)[COOKIE].value}"}


async def test_signing_out_removes_the_cookie(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        browser = await signed_in(gateway)
        page = await gateway.call("GET", "/", headers=browser)
        assert page.status == 200
        assert 'action="/sign-out"' in page.text
        out = await gateway.call("POST", "/sign-out", headers=browser)
        assert (out.status, out.headers["location"]) == (303, "/")
        gone = cookie(out)[COOKIE]
        assert (gone.value, gone["max-age"], gone["path"]) == ("", "0", "/")
        # A browser does not let another cookie replace one with `Secure`.
        assert gone["secure"]
        assert (await gateway.call("GET", "/", headers=HTML)).status == 401
        assert [line["action"] for line in gateway.audit()[:2]] == ["sign_in", "sign_out"]
        assert {line["user_id"] for line in gateway.audit()[:2]} == {"user-1"}


async def test_other_sites_cannot_sign_out(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        browser = await signed_in(gateway)
        foreign = browser | {"origin": "https://evil.example"}
        assert (await gateway.call("POST", "/sign-out", headers=foreign)).status == 403
        # Nothing to do, and nothing to record, without a valid cookie.
        before = len(gateway.audit())
        for headers in (HTML, HTML | {"cookie": f"{COOKIE}=nobody"}):
            assert (await gateway.call("POST", "/sign-out", headers=headers)).status == 303
        assert len(gateway.audit()) == before


async def test_only_a_page_with_the_cookie_has_the_button(tmp_path: Path) -> None:
    async with gateway_in_memory(tmp_path) as gateway:
        proxied = await gateway.call("GET", "/", "erika", headers=HTML)
        assert proxied.status == 200
        assert "Sign out" not in proxied.text
        assert "Sign out" not in (await gateway.call("GET", "/", headers=HTML)).text
        unknown = await gateway.call("GET", "/jobs/none", headers=await signed_in(gateway))
        assert unknown.status == 404
        assert "Sign out" in unknown.text


@pytest.mark.parametrize("setting", ["*", "proxy", "10.0.0.1/8", "10.0.0.0/33", "::1/64, x"])
def test_a_wrong_proxy_is_refused_at_the_start(setting: str) -> None:
    with pytest.raises(UsageError, match="GATEWAY_TRUSTED_PROXIES"):
        trusted_proxies(setting)
    assert trusted_proxies(" 10.0.0.1 ,fd00::/8, ") == ["10.0.0.1", "fd00::/8", "::ffff:10.0.0.1/128"]
    assert trusted_proxies("") == []
