from collections import defaultdict

import numpy as np
import pytest

from mirror.errors import MirrorError
from mirror.pretraining import embeddings
from mirror.pretraining.corpus import Corpus
from mirror.pretraining.embeddings import ppmi_embeddings, sinusoids


def corpus_of(pieces: list[list[int]]) -> Corpus:
    return Corpus(
        np.concatenate([np.array(piece, dtype=np.uint16) for piece in pieces]),
        np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64),
        np.arange(len(pieces)),
    )


@pytest.mark.parametrize("chunk", [7, 1000])
def test_counts_against_a_naive_loop(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(embeddings, "CHUNK", chunk)
    rng = np.random.default_rng(0)
    pieces = [rng.integers(0, 12, rng.integers(1, 9)).tolist() for _ in range(30)]
    expected: defaultdict[tuple[int, int], float] = defaultdict(float)
    for piece in pieces:
        for i, a in enumerate(piece):
            for j, b in enumerate(piece):
                if i != j and abs(i - j) <= embeddings.WINDOW:
                    expected[a, b] += 1 / abs(i - j)
    counts = embeddings._cooccurrences(corpus_of(pieces), 12).toarray()
    assert {(a, b): counts[a, b] for a, b in np.argwhere(counts)} == pytest.approx(dict(expected))


def test_tokens_that_stand_in_like_company_are_close() -> None:
    """Tokens 0-9 stand with 20-24, tokens 10-19 with 25-29."""
    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(2000):
        half = rng.integers(0, 2)
        pieces.append([rng.integers(0, 10) + 10 * half, *(rng.integers(20, 25, 3) + 5 * half)])
    vectors = ppmi_embeddings(corpus_of(pieces), 40, 4, 0.02, seed=0).numpy()
    assert vectors.shape == (40, 4)
    assert vectors.std() == pytest.approx(0.02, rel=0.1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit[:20] @ unit[:20].T
    same = cosines[:10, :10].mean() / 2 + cosines[10:, 10:].mean() / 2
    assert same > cosines[:10, 10:].mean() + 0.5


def test_tokens_that_never_occur_have_vectors() -> None:
    vectors = ppmi_embeddings(corpus_of([[0, 1, 2, 3, 4, 5, 6, 7] * 5]), 20, 3, 0.02, seed=0)
    assert vectors.isfinite().all()
    assert (vectors.norm(dim=1) > 0).all()


@pytest.mark.parametrize("dimension", [3, 7, 12, 16])
def test_always_the_same(dimension: int) -> None:
    """Also where the text has fewer dimensions than asked for."""
    corpus = corpus_of([[0, 1, 2, 3, 4, 5, 6, 7] * 5])
    vectors = [ppmi_embeddings(corpus, 20, dimension, 0.02, seed=0) for _ in range(2)]
    assert vectors[0].equal(vectors[1])
    assert vectors[0].std().item() == pytest.approx(0.02, rel=0.1)


def test_many_tokens_of_few_dimensions() -> None:
    """Each of 100 tokens stands with the same one."""
    corpus = corpus_of([[0, token] for token in range(1, 101)])
    assert ppmi_embeddings(corpus, 150, 2, 0.02, seed=0).isfinite().all()
    with pytest.raises(MirrorError, match=r"model\.start=ppmi finds fewer than model\.hidden=8 dimensions"):
        ppmi_embeddings(corpus, 150, 8, 0.02, seed=0)


def test_tokens_without_company() -> None:
    assert ppmi_embeddings(corpus_of([[token] for token in range(10)]), 20, 4, 0.02, seed=0).isfinite().all()


def test_sinusoids() -> None:
    waves = sinusoids(512, 64, 0.01)
    assert waves.shape == (512, 64)
    assert float(waves.std()) == pytest.approx(0.01, rel=0.2)
    near, far = (waves[100] @ waves[100 + step] for step in (1, 50))
    assert near > far
