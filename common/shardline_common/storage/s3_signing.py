"""The signature of a put whose sha256 is known.

botocore hashes the body once more to sign it over plain HTTP, and does so on the event loop: nothing else
runs for the 100 ms that a shard takes.
"""

from typing import Any

import botocore.auth
from botocore.auth import S3SigV4Auth

_ARGUMENT = "ShardlineSHA256"
# botocore makes "s3v4" of "v4" for this service, in a handler that runs after the own one.
_SIGNERS, _OWN_SIGNER = ("v4", "s3v4"), "s3v4-known-sha256"


class KnownSha256Auth(S3SigV4Auth):
    """Signs the sha256 that the caller of a put has given. The store compares it with what arrives."""

    def payload(self, request: Any) -> Any:
        """The hash of the body, or the text that stands for none where botocore signs none."""
        # The stubs leave these methods out.
        auth: Any = self
        known = request.context.get(_ARGUMENT)
        signs = auth._should_sha256_sign_payload(request) and not auth._is_streaming_checksum_payload(request)  # noqa: SLF001 - its own
        return known if known is not None and signs else super().payload(request)


def known_sha256(sha256: str) -> dict[str, str]:
    """The argument of `put_object` that gives the sha256 of the body, of a client that is registered."""
    return {_ARGUMENT: sha256}


def register_known_sha256(events: Any) -> None:
    """Let `put_object` of a client take the sha256 of its body."""
    # Under a name of its own: the signers of other clients in this process stay as they are.
    botocore.auth.AUTH_TYPE_MAPS[_OWN_SIGNER] = KnownSha256Auth

    def take_argument(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[_ARGUMENT] = params.pop(_ARGUMENT, None)

    def choose(context: dict[str, Any], signing_name: str, signature_version: Any, **_: Any) -> str | None:
        # Not for S3 Express or an anonymous client, which sign in another way.
        known = context.get(_ARGUMENT) is not None
        return _OWN_SIGNER if known and signing_name == "s3" and signature_version in _SIGNERS else None

    events.register("before-parameter-build.s3.PutObject", take_argument)
    events.register_first("choose-signer.s3.PutObject", choose)
