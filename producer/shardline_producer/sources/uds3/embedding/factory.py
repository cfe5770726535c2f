"""The choice of an embedder by its options."""

from shardline_producer.sources.uds3.embedding.embedder import Embedder, EmbeddingOptions
from shardline_producer.sources.uds3.embedding.http_embedder import HttpEmbedder
from shardline_producer.sources.uds3.embedding.onnx_embedder import OnnxEmbedder
from shardline_producer.sources.uds3.embedding.sentence_embedder import SentenceEmbedder


def make_embedder(options: EmbeddingOptions) -> Embedder:
    """An HTTP service if there is a URL, else the ONNX model in a folder, else sentence-transformers."""
    if options.url is not None:
        return HttpEmbedder(options, options.url)
    if options.path is not None:
        return OnnxEmbedder(options, options.path)
    return SentenceEmbedder(options)
