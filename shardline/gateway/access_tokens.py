"""Access tokens of Keycloak: verification of signature, audience, issuer and expiry."""

from typing import Any

import jwt

from shardline.gateway.jwks import JwksCache
from shardline.gateway.problems import Problem
from shardline.gateway.users import SecurityPolicy, User

_LEEWAY_SECONDS = 10
_MAX_TOKEN_CHARS = 16_384
_REQUIRED_CLAIMS = ["exp", "iss", "aud", "sub"]


def unauthorized(detail: str) -> Problem:
    """Make the error of a request without a valid token (401)."""
    return Problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="shardline"'})


class TokenVerifier:
    """Verifies access tokens with the public keys of the realm."""

    def __init__(self, policy: SecurityPolicy, jwks: JwksCache) -> None:
        self._policy = policy
        self._jwks = jwks

    async def verify(self, token: str) -> User:
        """Verify a token and return the user it names.

        Raises:
            Problem: 401, the token is not valid.
            JwksUnavailable: the realm's keys cannot be read, so the token cannot be verified.
        """
        key = await self._jwks.get(_key_id(token))
        if key is None:
            raise unauthorized("the token is signed with a key that the realm does not have")
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=self._policy.audience,
                issuer=self._policy.issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": _REQUIRED_CLAIMS},
            )
        except jwt.ExpiredSignatureError:
            raise unauthorized("the token has expired") from None
        except jwt.InvalidAudienceError:
            raise unauthorized("the token is for another audience") from None
        except jwt.InvalidIssuerError:
            raise unauthorized("the token is from another issuer") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise unauthorized("the token is not valid") from None
        return _user(claims, self._policy.issuer)


def _key_id(token: str) -> str:
    # Refuse a token that cannot be one of the realm's before it causes a fetch of the JWKS.
    if len(token) > _MAX_TOKEN_CHARS:
        raise unauthorized("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        raise unauthorized("the token is not a JWT") from None
    if header.get("alg") != "RS256":
        raise unauthorized("the token is not signed with RS256")
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise unauthorized("the token has no key id")
    return kid


def _user(claims: dict[str, Any], issuer: str) -> User:
    access = claims.get("realm_access")
    roles = access.get("roles") if isinstance(access, dict) else None
    named = [role for role in roles if isinstance(role, str)] if isinstance(roles, list) else []
    name = claims.get("email") or claims.get("preferred_username") or claims["sub"]
    return User(claims["sub"], str(name)[:200], frozenset(named), issuer)
