"""The content of `_SUCCESS`: the digest, the sha256 of what the manifest does not name, and a signature.

```
<digest of the dataset>
<sha256>  README.md
<sha256>  _state/outcome-1.json
<sha256>  manifest.json
signature <Ed25519 signature of the lines above, in base64>
```

The middle lines have the format of `sha256sum`. The last line is there only when a signing key is
configured. A dataset of version 0.1 has the first line only.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from shardline_common.errors import FailureCode, JobFailed

_HASH = re.compile(r"([0-9a-f]{64})  ([^\n]+)")
_SIGNATURE = "signature "
_SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class SuccessMarker:
    """The content of `_SUCCESS`. `hashes`: sha256 in hexadecimal by key; empty in version 0.1."""

    digest: str
    hashes: Mapping[str, str]
    signature: bytes | None = None

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that the signature signs: everything before its line."""
        lines = [self.digest, *(f"{value}  {key}" for key, value in sorted(self.hashes.items()))]
        return "".join(line + "\n" for line in lines).encode()

    def encode(self) -> bytes:
        """The content of the object."""
        if self.signature is None:
            return self.signed_bytes
        return self.signed_bytes + f"{_SIGNATURE}{base64.b64encode(self.signature).decode()}\n".encode()

    @classmethod
    def decode(cls, body: bytes) -> "SuccessMarker":
        """The marker of `encode`, or of version 0.1.

        Raises:
            JobFailed: the bytes are no marker (`dataset_damaged`).
        """
        digest, *lines = body.decode(errors="replace").splitlines() or [""]
        signature = None
        if lines and lines[-1].startswith(_SIGNATURE):
            signature = _decode_signature(lines.pop())
        found = [_HASH.fullmatch(line) for line in lines]
        marker = cls(digest, {item[2]: item[1] for item in found if item}, signature)
        if body != marker.encode():
            raise JobFailed(FailureCode.DATASET_DAMAGED, "_SUCCESS names another digest, or was changed")
        return marker


def hash_of(body: bytes) -> str:
    """The sha256 of the bytes of an object, in hexadecimal."""
    return sha256(body).hexdigest()


def _decode_signature(line: str) -> bytes | None:
    try:
        signature = base64.b64decode(line.removeprefix(_SIGNATURE), validate=True)
    except binascii.Error:
        return None
    return signature if len(signature) == _SIGNATURE_BYTES else None
