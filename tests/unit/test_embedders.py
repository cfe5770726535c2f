"""Embedders: a tiny ONNX model made by the test, a local HTTP service, and errors without a model."""

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deploy.dev.service import free_ports
from shardline_common.errors import FailureCode, JobFailed, SourceUnavailable
from shardline_producer.sources.uds3.embedding import onnx_embedder
from shardline_producer.sources.uds3.embedding.embedder import EmbeddingOptions
from shardline_producer.sources.uds3.embedding.factory import make_embedder
from shardline_producer.sources.uds3.embedding.onnx_embedder import OnnxEmbedder
from tests.embedding_stub import embedding_service, over_http

WORDS = {"[UNK]": 0, "bau": 1, "recht": 2, "dach": 3}
TABLE = [[0.0, 0.0, 1.0], [3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]]
SECRET = "do-not-show-me"  # noqa: S105 - of this test


def write_model(folder: Path, *, pools: bool = False, inputs: tuple[str, ...] = ("input_ids",)) -> None:
    """A model that looks words up in a table. With `pools` it returns only the first word's vector."""
    from onnx import TensorProto, helper, save_model

    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["tokens"], axis=0)]
    shape: list[int | str] = [1, "length", 3]
    if pools:
        nodes = [
            helper.make_node("Gather", ["table", "input_ids"], ["all"], axis=0),
            helper.make_node("Gather", ["all", "zero"], ["tokens"], axis=1),
        ]
        shape = [1, 3]
    given = [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "length"]) for name in inputs]
    output = helper.make_tensor_value_info("tokens", TensorProto.FLOAT, shape)
    table = helper.make_tensor("table", TensorProto.FLOAT, [4, 3], [x for row in TABLE for x in row])
    zero = helper.make_tensor("zero", TensorProto.INT64, [], [0])
    graph = helper.make_graph(nodes, "tiny", given, [output], [table, zero])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save_model(model, str(folder / "model.onnx"))


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))  # noqa: S106 - a word of the model
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path)
    write_tokenizer(tmp_path)
    return tmp_path


def onnx(folder: Path) -> OnnxEmbedder:
    return OnnxEmbedder(EmbeddingOptions(path=folder), folder)


async def test_the_vector_is_the_normalized_mean_of_the_tokens(model: Path) -> None:
    half = math.sqrt(0.5)
    assert await onnx(model).embed("bau recht") == pytest.approx([half, half, 0.0])
    assert await onnx(model).embed("bau bau bau") == [1.0, 0.0, 0.0]
    assert await onnx(model).embed("nie gehört") == [0.0, 0.0, 1.0]


async def test_a_text_is_cut_at_the_models_max_seq_length(model: Path) -> None:
    (model / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 2}))
    assert await onnx(model).embed("bau bau recht recht recht") == [1.0, 0.0, 0.0]


async def test_a_model_may_pool_and_need_other_inputs(model: Path) -> None:
    write_model(model, pools=True, inputs=("input_ids", "attention_mask", "token_type_ids"))
    assert await onnx(model).embed("recht bau") == [0.0, 1.0, 0.0]
    write_model(model, inputs=("input_ids", "pixel_values"))
    with pytest.raises(JobFailed, match="has the unknown input 'pixel_values'"):
        await onnx(model).embed("recht")


async def test_the_identity_changes_with_the_model_file(model: Path) -> None:
    first = onnx(model).identity
    assert first.startswith("all-MiniLM-L6-v2 (onnx, sha256 ")
    write_model(model, pools=True)
    assert onnx(model).identity != first


async def test_a_missing_or_invalid_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"no model\.onnx in") as error:
        await onnx(tmp_path).embed("x")
    assert error.value.code == FailureCode.SOURCE_INVALID
    assert "EMBEDDING_MODEL_PATH" in (error.value.hint or "")
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(JobFailed, match=r"tokenizer\.json cannot be loaded"):
        await onnx(tmp_path).embed("x")
    write_tokenizer(tmp_path)
    with pytest.raises(JobFailed, match=r"model\.onnx cannot be loaded"):
        await onnx(tmp_path).embed("x")


async def test_a_model_that_fails_or_cannot_be_read_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = onnx(model)

    class Fails:
        def get_inputs(self) -> list[Any]:
            return []

        def run(self, *_: object) -> None:
            raise RuntimeError("bad shape")

    monkeypatch.setitem(embedder.__dict__, "_session", Fails())
    with pytest.raises(JobFailed, match="does not work: bad shape"):
        await embedder.embed("x")

    def denied(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(onnx_embedder, "open_regular", denied)
    with pytest.raises(JobFailed, match="cannot be read: Permission denied"):
        _ = onnx(model).identity


async def test_missing_packages_are_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name in ("onnxruntime", "tokenizers", "sentence_transformers"):
            raise ImportError(f"No module named '{name}'")
        return import_module(name, package)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(JobFailed, match="tokenizers cannot be loaded") as error:
        await onnx(model).embed("x")
    assert "extra 'onnx'" in (error.value.hint or "")
    with pytest.raises(JobFailed, match="sentence_transformers cannot be loaded") as error:
        await make_embedder(EmbeddingOptions()).embed("x")
    assert "EMBEDDING_URL" in (error.value.hint or "")


async def test_sentence_transformers_is_used_if_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Vector:
        def tolist(self) -> list[float]:
            return [0.5, 0.5]

    class SentenceTransformer:
        def __init__(self, name: str, device: str) -> None:
            if name == "unknown":
                raise OSError("not found")
            assert (name, device) == ("all-MiniLM-L6-v2", "cpu")

        def encode(self, text: str, *, normalize_embeddings: bool) -> Vector:
            assert (text, normalize_embeddings) == ("x", True)
            return Vector()

    package = ModuleType("sentence_transformers")
    package.SentenceTransformer = SentenceTransformer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    embedder = make_embedder(EmbeddingOptions())
    assert embedder.identity == "all-MiniLM-L6-v2 (sentence-transformers)"
    assert await embedder.embed("x") == [0.5, 0.5]
    with pytest.raises(JobFailed, match="model unknown cannot be loaded"):
        await make_embedder(EmbeddingOptions(model="unknown")).embed("x")


@pytest.mark.parametrize("path", ["", "/v1/embeddings", "/embed"])
async def test_an_http_service_embeds_by_both_protocols(path: str) -> None:
    async with embedding_service({"bau": [1.0, 2.0]}, token=SECRET) as url:
        embedder = over_http(url + path, token=SECRET)
        assert await embedder.embed("bau") == [1.0, 2.0]
        assert embedder.identity == "all-MiniLM-L6-v2 (http)"
        with pytest.raises(JobFailed, match="422 unknown text"):
            await embedder.embed("nie gehört")
        with pytest.raises(JobFailed, match="refuses the credentials") as error:
            await over_http(url + path).embed("bau")
        assert error.value.hint == "check EMBEDDING_TOKEN"
        with pytest.raises(JobFailed, match="404"):
            await over_http(url + "/nothing").embed("bau")


@pytest.mark.parametrize("broken", [["x"], ["1", "2"], [1.0, None], [True, False], []])
async def test_an_answer_without_a_vector_is_an_error(broken: Any) -> None:
    async with embedding_service({"bau": broken}) as url:
        with pytest.raises(JobFailed, match="has no vector"):
            await over_http(url).embed("bau")


async def test_a_service_that_is_down_is_a_transient_error() -> None:
    (port,) = free_ports(1)
    with pytest.raises(SourceUnavailable, match="the embedding service"):
        await over_http(f"http://127.0.0.1:{port}").embed("bau")
