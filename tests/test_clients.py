"""What builds on sentence-transformers takes a saved encoder and gives its vectors.

``make clients`` installs all but SetFit, which wants transformers 4, into an environment of their own.
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mirror import MirrorEncoder
from tests.conftest import SENTENCES

TEXTS = [*SENTENCES[:6], "Hm."]
POOLINGS = ["mean", "first_last"]
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=POOLINGS)
def folder(request: pytest.FixtureRequest, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "encoder"
    MirrorEncoder.load(tiny_bert, request.param).save(folder)
    return folder


@pytest.fixture(scope="module")
def vectors(folder: Path) -> NDArray[np.float32]:
    return MirrorEncoder.load(folder).encode(TEXTS)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def test_langchain(folder: Path, vectors: NDArray[np.float32]) -> None:
    client = pytest.importorskip("langchain_huggingface").HuggingFaceEmbeddings(model_name=str(folder))
    np.testing.assert_allclose(client.embed_documents(TEXTS), vectors, atol=TOLERANCE)
    np.testing.assert_allclose(client.embed_query(TEXTS[0]), vectors[0], atol=TOLERANCE)


def test_llama_index(folder: Path, vectors: NDArray[np.float32]) -> None:
    """Which scales vectors to length 1."""
    client = pytest.importorskip("llama_index.embeddings.huggingface").HuggingFaceEmbedding(model_name=str(folder))
    np.testing.assert_allclose(client.get_text_embedding_batch(TEXTS), unit(vectors), atol=TOLERANCE)


def test_haystack(folder: Path, vectors: NDArray[np.float32]) -> None:
    embedders = pytest.importorskip("haystack_integrations.components.embedders.sentence_transformers")
    from haystack import Document

    documents = embedders.SentenceTransformersDocumentEmbedder(model=str(folder), progress_bar=False)
    query = embedders.SentenceTransformersTextEmbedder(model=str(folder), progress_bar=False)
    for client in (documents, query):
        client.warm_up()
    found = documents.run([Document(content=text) for text in TEXTS])["documents"]
    np.testing.assert_allclose([document.embedding for document in found], vectors, atol=TOLERANCE)
    np.testing.assert_allclose(query.run(TEXTS[0])["embedding"], vectors[0], atol=TOLERANCE)


def test_chroma(folder: Path, vectors: NDArray[np.float32]) -> None:
    functions = pytest.importorskip("chromadb.utils.embedding_functions")
    client = functions.SentenceTransformerEmbeddingFunction(model_name=str(folder))
    np.testing.assert_allclose(np.array(client(TEXTS)), vectors, atol=TOLERANCE)


def test_keybert(folder: Path, vectors: NDArray[np.float32]) -> None:
    client = pytest.importorskip("keybert").KeyBERT(model=str(folder))
    np.testing.assert_allclose(client.model.embed(TEXTS), vectors, atol=TOLERANCE)
    assert client.extract_keywords(TEXTS[0])


def test_bertopic(folder: Path, vectors: NDArray[np.float32], tmp_path: Path) -> None:
    library = pytest.importorskip("bertopic")
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    client = library.BERTopic(
        embedding_model=str(folder), umap_model=PCA(n_components=2), hdbscan_model=KMeans(n_clusters=2)
    )
    texts = SENTENCES[:40]
    client.fit_transform(texts)
    np.testing.assert_allclose(client.embedding_model.embed(TEXTS), vectors, atol=TOLERANCE)
    client.save(tmp_path / "topics", serialization="safetensors", save_embedding_model=str(folder))
    again = library.BERTopic.load(tmp_path / "topics")
    np.testing.assert_allclose(again.embedding_model.embed(TEXTS), vectors, atol=TOLERANCE)
    assert len(again.get_topic_info()) == len(client.get_topic_info())


def test_faiss(folder: Path, vectors: NDArray[np.float32]) -> None:
    """The how-to's lines find what the cosines say."""
    library = pytest.importorskip("faiss")
    scaled = unit(vectors)
    index = library.IndexFlatIP(scaled.shape[1])
    index.add(scaled)
    _, found = index.search(scaled, 3)
    np.testing.assert_array_equal(found, np.argsort(-(scaled @ scaled.T), axis=1)[:, :3])


def test_setfit(folder: Path, vectors: NDArray[np.float32]) -> None:
    library = pytest.importorskip("setfit")
    client = library.SetFitModel.from_pretrained(str(folder))
    np.testing.assert_allclose(client.model_body.encode(TEXTS), vectors, atol=TOLERANCE)
    client.fit(TEXTS, [0, 1, 0, 1, 0, 1, 0], num_epochs=1)
    assert len(client.predict(TEXTS)) == len(TEXTS)
