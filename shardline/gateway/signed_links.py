"""Signed download links: each is valid without a token, for one file, until it expires. Pure.

A link names the user to whom it was given, so that the audit log knows whose link a download used.
"""

import hmac
import json
from hashlib import sha256
from urllib.parse import quote


class LinkSigner:
    """Signs links and verifies signatures with one secret key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def link(self, dataset_id: str, file: str, expires: int, user: str = "") -> str:
        """Return path and query of the link to a file. `expires` is in seconds since 1970.

        `user` is the id of the user to whom the link is given.
        """
        signature = self._sign(dataset_id, file, expires, user)
        path = f"/api/datasets/{quote(dataset_id)}/files/{quote(file)}"
        named = f"&user={quote(user, safe='')}" if user else ""
        return f"{path}?expires={expires}{named}&signature={signature}"

    def verify(
        self, dataset_id: str, file: str, expires: int, signature: str, now: float, user: str = ""
    ) -> bool:
        """Whether the signature is valid for file, `expires` and user, and `now` is before `expires`."""
        expected = self._sign(dataset_id, file, expires, user)
        return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")) and now < expires

    def _sign(self, dataset_id: str, file: str, expires: int, user: str) -> str:
        # A list in JSON, because a line break in one part must not move its end.
        parts = [dataset_id, file, str(expires), user]
        text = json.dumps(parts).encode()
        return hmac.new(self._key, text, sha256).hexdigest()
