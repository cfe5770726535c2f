"""Download links that work without a token: signed, for one file, for a while. Pure."""

import hmac
from hashlib import sha256
from urllib.parse import quote


class Links:
    """Makes and checks links with one key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def link(self, dataset_id: str, file: str, expires: int) -> str:
        """The path and query of a file's link; `expires` is in seconds since 1970."""
        mark = self._mark(dataset_id, file, expires)
        return f"/api/datasets/{quote(dataset_id)}/files/{quote(file)}?expires={expires}&signature={mark}"

    def holds(self, dataset_id: str, file: str, expires: int, signature: str, now: float) -> bool:
        """Whether a link is one of ours and not too old."""
        mark = self._mark(dataset_id, file, expires)
        return hmac.compare_digest(mark.encode(), signature.encode("utf-8", "replace")) and now < expires

    def _mark(self, dataset_id: str, file: str, expires: int) -> str:
        text = f"{dataset_id}\n{file}\n{expires}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, text, sha256).hexdigest()
