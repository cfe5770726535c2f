"""Only access tokens are accepted: not the other tokens that Keycloak signs with the same key."""

import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest

from shardline.gateway.access_tokens import TokenVerifier
from shardline.gateway.jwks import JwksCache
from shardline.gateway.problems import Problem
from shardline.gateway.users import SecurityPolicy, User
from shardline_common.runtime.clock import SYSTEM_CLOCK
from tests.gateway.realm import AUDIENCE, REALM, Realm


@pytest.fixture(scope="module")
def realm() -> Realm:
    found = Realm()
    found.url = "https://sso.example.org"
    return found


async def verified(realm: Realm, claims: Mapping[str, Any], header: Mapping[str, Any]) -> User:
    """Return the user of a token with these changes to its claims and its header."""

    async def fetch() -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(realm.document())
        return found

    policy = SecurityPolicy(None, f"{realm.url}/realms/{REALM}", AUDIENCE)
    # A claim of None is sent as null, not left out.
    whole = realm.claims(["admin"]) | dict(claims)
    token = jwt.encode(whole, realm.keys["first"], "RS256", headers={"kid": "first"} | dict(header))
    return await TokenVerifier(policy, JwksCache(fetch, SYSTEM_CLOCK)).verify(token)


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"typ": "Bearer"}, {}),
        ({"typ": "bearer", "nonce": "n"}, {}),
        ({}, {}),
        ({}, {"typ": "at+jwt"}),
        ({}, {"typ": "application/at+jwt"}),
        ({"nonce": "n", "at_hash": "x"}, {"typ": "at+JWT"}),
        ({"auth_time": 1, "azp": "frontend", "sid": "s", "acr": "1"}, {}),
    ],
)
async def test_an_access_token_is_accepted(
    realm: Realm, claims: Mapping[str, Any], header: Mapping[str, Any]
) -> None:
    user = await verified(realm, claims, header)
    assert (user.id, user.issuer) == ("user-1", "https://sso.example.org/realms/vcc")


@pytest.mark.parametrize(
    ("claims", "header", "detail"),
    [
        ({"typ": "ID"}, {}, "'ID'"),
        ({"typ": "Refresh"}, {}, "'Refresh'"),
        ({"typ": "Offline"}, {}, "'Offline'"),
        ({"typ": "Logout"}, {}, "'Logout'"),
        ({"typ": "DPoP"}, {}, "'DPoP'"),
        ({"typ": "Registration" * 50}, {}, "not an access token"),
        ({"typ": ["Bearer"]}, {}, "not an access token"),
        ({"typ": None}, {}, "not an access token"),
        ({"typ": ""}, {}, "not an access token"),
        ({"at_hash": "x"}, {}, "ID token"),
        ({"c_hash": "x"}, {}, "ID token"),
        ({"nonce": "x"}, {}, "ID token"),
        ({}, {"typ": "logout+jwt"}, "logout+jwt"),
        ({}, {"typ": "dpop+jwt"}, "dpop+jwt"),
        ({}, {"typ": "secevent+jwt"}, "secevent+jwt"),
        ({"typ": "ID"}, {"typ": "at+jwt"}, "'ID'"),
    ],
)
async def test_another_token_of_the_realm_is_refused(
    realm: Realm, claims: Mapping[str, Any], header: Mapping[str, Any], detail: str
) -> None:
    with pytest.raises(Problem) as refused:
        await verified(realm, claims, header)
    assert refused.value.status_code == 401
    assert detail in str(refused.value.detail)
    assert len(str(refused.value.detail)) < 300


@pytest.mark.parametrize("sub", ["", " ", "x" * 256, "a\nb", "\ud800", 7, None, ["user-1"]])
async def test_a_token_without_a_usable_subject_is_refused(realm: Realm, sub: object) -> None:
    with pytest.raises(Problem, match="not valid"):
        await verified(realm, {"sub": sub}, {})


async def test_two_long_subjects_are_two_users(realm: Realm) -> None:
    # A subject that is cut would be the same user for both.
    one = await verified(realm, {"sub": "x" * 254 + "1"}, {})
    other = await verified(realm, {"sub": "x" * 254 + "2"}, {})
    assert one.owner != other.owner


async def test_a_missing_subject_names_what_to_change_in_keycloak(realm: Realm) -> None:
    claims = realm.claims(["admin"])
    del claims["sub"]
    token = jwt.encode(claims, realm.keys["first"], "RS256", headers={"kid": "first"})

    async def fetch() -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads(realm.document())
        return found

    policy = SecurityPolicy(None, f"{realm.url}/realms/{REALM}", AUDIENCE)
    with pytest.raises(Problem, match="`basic`"):
        await TokenVerifier(policy, JwksCache(fetch, SYSTEM_CLOCK)).verify(token)


@pytest.mark.parametrize("email", ["\ud800@example.org", "a\nb", "x" * 500, 7])
async def test_any_name_can_be_written(realm: Realm, email: object) -> None:
    user = await verified(realm, {"email": email}, {})
    assert user.name.encode()
    assert user.name.isprintable()
    assert len(user.name) <= 200
