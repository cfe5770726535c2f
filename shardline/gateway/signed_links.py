"""Signed download links: each is valid without a token, for one file, until it expires. Pure."""

import hmac
from hashlib import sha256
from urllib.parse import quote


class LinkSigner:
    """Signs links and verifies signatures with one secret key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def link(self, dataset_id: str, file: str, expires: int) -> str:
        """Return path and query of the link to a file. `expires` is in seconds since 1970."""
        signature = self._sign(dataset_id, file, expires)
        path = f"/api/datasets/{quote(dataset_id)}/files/{quote(file)}"
        return f"{path}?expires={expires}&signature={signature}"

    def verify(self, dataset_id: str, file: str, expires: int, signature: str, now: float) -> bool:
        """Whether the signature is valid for this file and `expires`, and `now` is before `expires`."""
        expected = self._sign(dataset_id, file, expires)
        return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")) and now < expires

    def _sign(self, dataset_id: str, file: str, expires: int) -> str:
        text = f"{dataset_id}\n{file}\n{expires}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, sha256).hexdigest()
