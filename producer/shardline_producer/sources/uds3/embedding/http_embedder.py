"""Embedding by an HTTP service: OpenAI's /v1/embeddings, or /embed of text-embeddings-inference."""

from typing import Any
from urllib.parse import urlsplit

from shardline_producer.sources.http_store import HttpStoreOptions, open_http_store
from shardline_producer.sources.uds3.embedding.embedder import EmbeddingOptions, model_error


class HttpEmbedder:
    """Implements `Embedder`. The URL's path selects the protocol; without a path it is /v1/embeddings."""

    def __init__(self, options: EmbeddingOptions, url: str) -> None:
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise model_error(f"EMBEDDING_URL is no URL: {error}", "correct EMBEDDING_URL") from None
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
        """The model's name. The service does not report a version."""
        return f"{self._model} (http)"

    async def embed(self, text: str) -> list[float]:
        """Request the vector from the service."""
        body: dict[str, Any] = {"model": self._model, "input": text, "encoding_format": "float"}
        is_inference = self._path.endswith("/embed")
        if is_inference:
            body = {"inputs": text}
        async with open_http_store(self._options) as http:
            found = await http.json(await http.post(self._path, body), "embed the query")
            try:
                vector = found[0] if is_inference else found["data"][0]["embedding"]
            except (LookupError, TypeError):
                vector = None
            if not isinstance(vector, list) or not vector or not all(map(_is_number, vector)):
                raise http.invalid(
                    "the response has no vector", "end EMBEDDING_URL with /v1/embeddings or /embed"
                )
            return [float(number) for number in vector]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
