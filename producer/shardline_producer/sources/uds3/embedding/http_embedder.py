"""A service that embeds over HTTP: OpenAI's /v1/embeddings, or /embed of text-embeddings-inference."""

from typing import Any
from urllib.parse import urlsplit

from shardline_producer.sources.http_store import HttpStore, HttpStoreOptions, open_http_store
from shardline_producer.sources.uds3.embedding.embedder import EmbeddingOptions


class HttpEmbedder:
    """Implements `Embedder`. The path of the URL tells the form; one without a path gets /v1/embeddings."""

    def __init__(self, options: EmbeddingOptions, url: str) -> None:
        parts = urlsplit(url)
        path = parts.path.rstrip("/")
        self._path = path if path.endswith(("/embeddings", "/embed")) else path + "/v1/embeddings"
        self._model = options.model
        self._options = HttpStoreOptions(
            name="the embedding service",
            url=f"{parts.scheme}://{parts.netloc}",
            headers={"Authorization": f"Bearer {options.token}"} if options.token else {},
            ca_file=options.ca_file,
            timeout=options.timeout,
            address_setting="EMBEDDING_URL",
            secret_setting="EMBEDDING_TOKEN",  # noqa: S106 - the setting's name
        )

    @property
    def identity(self) -> str:
        """The model's name; which version of it the service runs is not told."""
        return f"{self._model} (http)"

    async def embed(self, text: str) -> list[float]:
        """The vector that the service gives."""
        async with open_http_store(self._options) as http:
            if self._path.endswith("/embed"):
                value = await self._ask(http, {"inputs": text})
                return _vector(http, value, lambda found: found[0])
            value = await self._ask(http, {"model": self._model, "input": text, "encoding_format": "float"})
            return _vector(http, value, lambda found: found["data"][0]["embedding"])

    async def _ask(self, http: HttpStore, body: dict[str, Any]) -> Any:
        return await http.json(await http.post(self._path, body), "embed the query")


def _vector(http: HttpStore, value: Any, pick: Any) -> list[float]:
    try:
        return [float(number) for number in pick(value)]
    except (LookupError, TypeError, ValueError):
        raise http.invalid(
            "the answer holds no vector", "EMBEDDING_URL ends with /v1/embeddings or /embed"
        ) from None
