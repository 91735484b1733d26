import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mirror import MirrorError
from mirror.config import TokenizerConfig, TokenizerKind
from mirror.pretraining.tokenizer import load_tokenizer, opens_word, train_tokenizer
from tests.conftest import SENTENCES

SIZES = {TokenizerKind.wordpiece: 150, TokenizerKind.bpe: 300}


@pytest.mark.parametrize("kind", TokenizerKind)
def test_tokenizer_is_learnt_saved_and_loaded(kind: TokenizerKind, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(SENTENCES, TokenizerConfig(kind=kind, vocab_size=SIZES[kind]), 64, progress=False)
    assert len(tokenizer) == SIZES[kind]
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded(SENTENCES)["input_ids"] == tokenizer(SENTENCES)["input_ids"]
    ids = loaded(SENTENCES[0])["input_ids"]
    assert (ids[0], ids[-1]) == (loaded.cls_token_id, loaded.sep_token_id)
    assert loaded.decode(ids, skip_special_tokens=True).strip() == SENTENCES[0].lower()
    assert loaded.model_max_length == 64


@pytest.mark.parametrize("kind", TokenizerKind)
def test_same_texts_same_tokenizer(kind: TokenizerKind) -> None:
    """The library alone gives another WordPiece vocabulary each time."""
    one, *others = (
        train_tokenizer(SENTENCES, TokenizerConfig(None, kind, SIZES[kind]), 64, progress=False).get_vocab()
        for _ in range(4)
    )
    assert all(other == one for other in others)


def test_rare_characters_are_unknown_to_word_pieces() -> None:
    texts = [*SENTENCES * 10, "one 水 in ten thousand"]
    tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=150), 64, progress=False)
    assert tokenizer.tokenize("水 man") == ["[UNK]", *tokenizer.tokenize("man")]


def test_case_is_kept_on_request() -> None:
    config = TokenizerConfig(kind=TokenizerKind.bpe, vocab_size=300, lowercase=False)
    tokenizer = train_tokenizer(SENTENCES, config, 64, progress=False)
    assert tokenizer("A man")["input_ids"] != tokenizer("a man")["input_ids"]


def test_roberta_pads_with_one() -> None:
    """RoBERTa's position ids begin behind the padding id."""
    tokenizer = train_tokenizer(SENTENCES, TokenizerConfig(None, TokenizerKind.bpe, 300), 64, progress=False)
    assert tokenizer.pad_token_id == 1


def test_vocabulary_larger_than_the_text_supports() -> None:
    with pytest.raises(MirrorError, match=r"tokenizer\.vocab_size=5000 is more than the text supports \(\d+ entries\)"):
        train_tokenizer(SENTENCES, TokenizerConfig(vocab_size=5000), 64, progress=False)


@pytest.mark.parametrize("kind", TokenizerKind)
def test_vocabulary_smaller_than_the_characters(kind: TokenizerKind) -> None:
    texts = ["".join(chr(0x4E00 + i) for i in range(300))]
    with pytest.raises(MirrorError, match=r"tokenizer\.vocab_size=150 has no room for the single characters"):
        train_tokenizer(texts, TokenizerConfig(kind=kind, vocab_size=150), 64, progress=False)


@pytest.mark.parametrize("kind", TokenizerKind)
def test_word_beginnings(kind: TokenizerKind) -> None:
    tokenizer = train_tokenizer(SENTENCES, TokenizerConfig(None, kind, SIZES[kind]), 64, progress=False)
    opens = opens_word(tokenizer)
    for sentence in SENTENCES[:20]:
        ids = tokenizer(sentence.rstrip("."), add_special_tokens=False)["input_ids"]
        begun = sum(opens[i] for i in ids)
        apostrophes = 2 * sentence.count("'") if kind is TokenizerKind.wordpiece else 0  # a sign is a word to BERT
        assert begun == len(sentence.split()) + apostrophes


def test_tokenizer_of_the_bundled_model() -> None:
    assert load_tokenizer("bundled:mini").mask_token == "[MASK]"


def test_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"tokenizer\.path=.* cannot be loaded"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "file").write_text("no tokenizer")
    with pytest.raises(MirrorError, match=r"tokenizer\.path=.*file is a file: give the folder of a model"):
        load_tokenizer(str(tmp_path / "file"))


def test_code_of_a_tokenizer_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "it ran"
    folder = tmp_path / "odd"
    folder.mkdir()
    settings = {"tokenizer_class": "OddTokenizer", "auto_map": {"AutoTokenizer": ["odd.OddTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    code = f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass OddTokenizer: ...\n"
    (folder / "odd.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    with pytest.raises(MirrorError, match=r"tokenizer\.path=.* code of its own, which is never run"):
        load_tokenizer(str(folder))
    assert not marker.exists()
