"""Access tokens of Keycloak: verification of signature, audience, issuer, expiry, kind and subject."""

from typing import Any

import jwt

from shardline.gateway.jwks import JwksCache
from shardline.gateway.problems import Problem
from shardline.gateway.users import SecurityPolicy, User

_LEEWAY_SECONDS = 10
_MAX_TOKEN_CHARS = 16_384
_MAX_SUBJECT_CHARS = 255
_REQUIRED_CLAIMS = ["exp", "iss", "aud", "sub"]
# The realm signs its ID, logout and other tokens with the same key, and an ID token may name the same
# audience. RFC 9068 names the kind of an access token in the header, Keycloak in the claim `typ`.
_RFC_9068 = frozenset({"at+jwt", "application/at+jwt"})
_HEADER_TYPES = _RFC_9068 | {"jwt"}
_ID_TOKEN_CLAIMS = ("at_hash", "c_hash", "nonce")


def unauthorized(detail: str) -> Problem:
    """Make the error of a request without a valid token (401)."""
    return Problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="shardline"'})


class TokenVerifier:
    """Verifies access tokens with the public keys of the realm."""

    def __init__(self, policy: SecurityPolicy, jwks: JwksCache) -> None:
        self._policy = policy
        self._jwks = jwks

    async def close(self) -> None:
        """End what runs in the background."""
        await self._jwks.close()

    async def verify(self, token: str) -> User:
        """Verify a token and return the user it names.

        Raises:
            Problem: 401, the token is not valid.
            JwksUnavailable: the realm's keys cannot be read, so the token cannot be verified.
        """
        header = _checked_header(token)
        key = await self._jwks.get(header["kid"])
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
        except jwt.MissingRequiredClaimError as error:
            if error.claim != "sub":
                raise unauthorized("the token is not valid") from None
            advice = "give the client the scope `basic` in Keycloak"
            raise unauthorized(f"the token is not valid: it has no subject (`sub`); {advice}") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise unauthorized("the token is not valid") from None
        _check_kind(header, claims)
        return _user(claims, self._policy.issuer)


def _checked_header(token: str) -> dict[str, Any]:
    # Refuse a token that cannot be one of the realm's before it causes a fetch of the JWKS.
    if len(token) > _MAX_TOKEN_CHARS:
        raise unauthorized("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError):
        raise unauthorized("the token is not a JWT") from None
    if header.get("alg") != "RS256":
        raise unauthorized("the token is not signed with RS256")
    if not isinstance(header.get("kid"), str):
        raise unauthorized("the token has no key id")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _HEADER_TYPES:
        raise _not_an_access_token(kind)
    return header


def _check_kind(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """Raise Problem (401) for a token of another kind: ID, refresh, offline, logout, or bound to a key."""
    if "typ" in claims:
        kind = claims["typ"]
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise _not_an_access_token(kind)
        return
    if str(header.get("typ")).lower() not in _RFC_9068 and any(name in claims for name in _ID_TOKEN_CLAIMS):
        raise unauthorized("the token is an ID token, not an access token")


def _not_an_access_token(kind: object) -> Problem:
    return unauthorized(f"the token is of the type {str(kind)[:40]!r}, not an access token")


def _user(claims: dict[str, Any], issuer: str) -> User:
    access = claims.get("realm_access")
    roles = access.get("roles") if isinstance(access, dict) else None
    named = [role for role in roles if isinstance(role, str)] if isinstance(roles, list) else []
    subject = claims["sub"]
    if not isinstance(subject, str) or not subject.strip() or not subject.isprintable():
        raise unauthorized("the token is not valid: its subject is not text")
    if len(subject) > _MAX_SUBJECT_CHARS:
        # Not cut: two subjects with the same beginning would be one user.
        raise unauthorized(
            f"the token is not valid: its subject has more than {_MAX_SUBJECT_CHARS} characters"
        )
    name = str(claims.get("email") or claims.get("preferred_username") or subject)[:200]
    # A lone surrogate could be written to no file.
    shown = "".join(char if char.isprintable() else "?" for char in name)
    return User(subject, shown, frozenset(named), issuer)
