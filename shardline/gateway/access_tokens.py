"""Tokens of Keycloak: signature, audience, issuer, expiry, roles."""

from typing import Any

import jwt

from shardline.gateway.jwks import Keys
from shardline.gateway.problems import Problem
from shardline.gateway.users import SecurityPolicy, User

_LEEWAY = 10
_MOST_BYTES = 16_384
_REQUIRED = ["exp", "iss", "aud", "sub"]


def unauthorized(detail: str) -> Problem:
    """The caller is not who they say, or says nothing."""
    return Problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="shardline"'})


class Tokens:
    """Checks tokens against the realm's keys."""

    def __init__(self, policy: SecurityPolicy, keys: Keys) -> None:
        self._policy = policy
        self._keys = keys

    async def user(self, token: str) -> User:
        """The user whom a token names.

        Raises:
            Problem: 401, the token is not valid.
            KeysUnavailable: it cannot be checked now.
        """
        key = await self._keys.get(_key_id(token))
        if key is None:
            raise unauthorized("the token is signed with a key that the realm does not have")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=self._policy.audience,
                issuer=self._policy.issuer,
                leeway=_LEEWAY,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise unauthorized("the token has expired") from None
        except jwt.InvalidAudienceError:
            raise unauthorized("the token is for another audience") from None
        except jwt.InvalidIssuerError:
            raise unauthorized("the token is of another issuer") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise unauthorized("the token is not valid") from None
        return _user(claims)


def _key_id(token: str) -> str:
    # Before anything is asked of the realm: only what could be one of its tokens.
    if len(token) > _MOST_BYTES:
        raise unauthorized("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        raise unauthorized("the token is not a JWT") from None
    if header.get("alg") != "RS256":
        raise unauthorized("the token is not signed with RS256")
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise unauthorized("the token names no key")
    return kid


def _user(claims: dict[str, Any]) -> User:
    access = claims.get("realm_access")
    roles = access.get("roles") if isinstance(access, dict) else None
    named = [role for role in roles if isinstance(role, str)] if isinstance(roles, list) else []
    name = claims.get("email") or claims.get("preferred_username") or claims["sub"]
    return User(str(claims["sub"])[:200], str(name)[:200], frozenset(named))
