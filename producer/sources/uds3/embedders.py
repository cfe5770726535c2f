"""Which embedder the settings ask for."""

from producer.sources.uds3.embed import Embedder, EmbeddingOptions
from producer.sources.uds3.embed_http import HttpEmbedder
from producer.sources.uds3.embed_onnx import OnnxEmbedder
from producer.sources.uds3.embed_sentence import SentenceEmbedder


def embedder(options: EmbeddingOptions) -> Embedder:
    """A service where a URL is set, else the ONNX model of a folder, else sentence-transformers."""
    if options.url is not None:
        return HttpEmbedder(options, options.url)
    if options.path is not None:
        return OnnxEmbedder(options, options.path)
    return SentenceEmbedder(options)
