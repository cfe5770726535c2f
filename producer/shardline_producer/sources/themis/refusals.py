"""What the server's refusals mean, as errors that name the scope or the policy. Pure.

The server checks a request three times: the token, the scopes of the token, and then its policies, each of
which allows users some actions on some paths. POST /query is the action `query`, GET /entities is `read`.
The policies that it ships allow their read-only user `data.read` on /entities/, which is another action.
"""

from collections.abc import Mapping
from typing import Any

from shardline_common.errors import FailureCode, JobFailed

_SCOPE = "Missing required scope: "
_TOKEN_HINT = "set THEMIS_TOKEN to a token with the scope data:read"  # noqa: S105 - no secret


def refusal(address: str, method: str, path: str, answer: Mapping[str, Any] | None, status: int) -> JobFailed:
    """The error for an answer 401 or 403. `answer` is its JSON, None for the page of a proxy."""
    said = str(answer.get("message") or answer.get("error")) if answer else f"HTTP {status}"
    if answer and answer.get("error") == "policy_denied":
        return _policy_error(address, method, path, said, answer.get("policy_id"))
    if answer and said.startswith(_SCOPE):
        scope = said.removeprefix(_SCOPE)
        return JobFailed(
            FailureCode.SOURCE_INVALID,
            f"ThemisDB at {address} refuses the token: it lacks the scope {scope}",
            hint=f"set THEMIS_TOKEN to a token with the scope {scope}",
        )
    return JobFailed(
        FailureCode.SOURCE_INVALID, f"ThemisDB at {address} refuses the token: {said}", hint=_TOKEN_HINT
    )


def _policy_error(address: str, method: str, path: str, said: str, policy: object) -> JobFailed:
    if path.startswith("/query"):
        action, resource, instead = "query", "/query", ""
    else:
        action, resource = "read", "/entities/"
        instead = " (a job with source.lossless false needs only the action 'query' on /query)"
    denied = (
        f"its policy '{policy}' denies"
        if policy
        else "no policy of the server allows"
        if said == "no_matching_policy"
        else f"{said}: no policy allows"
    )
    return JobFailed(
        FailureCode.SOURCE_INVALID,
        f"ThemisDB at {address} accepts the token and its scope data:read, and refuses {method} {path} "
        f"({said}): {denied} the token's user the action '{action}' on {resource}{instead}",
        hint=f"allow the user the action '{action}' on the resource {resource} in the server's "
        "config/policies.json or .yaml, and restart it",
    )
