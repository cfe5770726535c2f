"""Authentication and authorization of requests, as FastAPI dependencies."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from shardline.gateway.access_tokens import unauthorized
from shardline.gateway.context import Context, GatewayContext
from shardline.gateway.jwks import JwksUnavailable
from shardline.gateway.middleware import KNOWN_USER
from shardline.gateway.problems import Problem
from shardline.gateway.rate_limits import client_address
from shardline.gateway.users import Permission, User

COOKIE = "shardline_token"
_MAX_PATH_CHARS = 300
_bearer = HTTPBearer(auto_error=False, description="An access token of the Keycloak realm (RS256).")
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def bearer_token(request: Request) -> str | None:
    """Return the token of the Authorization header, or None."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


async def authorize(
    request: Request, context: GatewayContext, token: str | None, permission: Permission
) -> User:
    """Authenticate the caller and check the permission. A refusal is recorded in the audit log.

    Args:
        request: is searched for the cookie of the pages when `token` is None.
        context: verifies tokens and counts requests.
        token: the access token of the caller.
        permission: what the request needs.

    Raises:
        Problem: 401, no valid token; 403, no role allows the action; 429, too many requests.
        JwksUnavailable: tokens cannot be verified now.
    """
    user: User | None = None
    try:
        # 1. Authenticate.
        if context.security.debug_user is not None:
            user = context.security.debug_user
        elif context.token_verifier is None:
            raise unauthorized("tokens cannot be verified")
        else:
            user = await context.token_verifier.verify(token or _cookie_token(request))
        request.scope[KNOWN_USER] = user.id
        # 2. Count the request.
        context.limits.requests.take(user.id)
        # 3. Check the permission.
        user.require(permission)
    except Problem as problem:
        # The audit log is limited: who could fill it, could have its old files removed.
        if user is None:
            context.limits.refusals.take(client_address(request.scope))
        over_limit = problem.status_code == HTTPStatus.TOO_MANY_REQUESTS
        if user is None or not over_limit or context.limits.refusals.allows(f"user {user.id}"):
            # Not the path of the URL: it lacks what a URL may not have, such as line breaks.
            action = f"{request.method} {request.scope['path']}"[:_MAX_PATH_CHARS]
            dataset = str(request.path_params.get("dataset_id", ""))[:_MAX_PATH_CHARS] or None
            context.audit_log.record(user, action, str(problem.status_code), dataset=dataset)
        raise
    return user


def _cookie_token(request: Request) -> str:
    token = request.cookies.get(COOKIE)
    if not token:
        raise unauthorized("a token is needed: Authorization: Bearer …")
    if request.method != "GET" and request.headers.get("origin") is None:
        # The middleware checks the Origin header where there is one. Without it, the request may come from
        # another site's page, to which the browser adds the cookie.
        raise Problem(403, "a request that changes something with a cookie needs an Origin header")
    return token


async def cookie_user(request: Request, context: GatewayContext) -> User | None:
    """Return the user whose token is in the cookie of the pages; None when there is no valid one."""
    token = request.cookies.get(COOKIE)
    if not token or context.token_verifier is None:
        return None
    try:
        return await context.token_verifier.verify(token)
    except (Problem, JwksUnavailable):
        return None


def _requires(permission: Permission) -> Any:
    async def user(request: Request, context: Context, bearer: _Bearer) -> User:
        return await authorize(request, context, bearer.credentials if bearer else None, permission)

    return Depends(user)


# The parameter types by which a route receives the caller, who has the permission.
ReadAccess = Annotated[User, _requires(Permission.READ)]
CreateAccess = Annotated[User, _requires(Permission.CREATE)]
ExportAccess = Annotated[User, _requires(Permission.EXPORT)]
