"""Tiny random models of every architecture behind ``conf/model``, with tokenizers of the right kind, made offline.

The tokenizer classes are the ones that ``AutoTokenizer`` picks for the real checkpoints, with their special tokens
and their ids where a model depends on them (RoBERTa's family counts positions from the padding id).
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tests.conftest import SENTENCES

MAX_TOKENS = 128
"""What every one of the models reads."""
SPREAD = 0.2
"""Of the random weights. At the usual 0.02 attention adds next to nothing, and mixed-up texts would not be noticed."""
SIZES = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64,
    "initializer_range": SPREAD,
}  # fmt: skip
"""Of the models that call them so. Three layers, so that the first, the last two and the last all differ."""


WORDS = Counter(re.findall(r"\w+|[^\w\s]", " ".join(SENTENCES)))
"""Of the test sentences, with their counts."""
LETTERS = sorted(set("".join(WORDS)))
"""Of the test sentences. The libraries number pieces in the order of a hash table, another one in each process, and
ties follow the numbers: so the vocabularies are written down here, and the long words fall to pieces."""


def word_pieces(special: list[str]) -> dict[str, int]:
    """A WordPiece vocabulary of the test sentences, special tokens first."""
    words = sorted(word.lower() for word in WORDS if len(word) <= 6)
    letters = [letter.lower() for letter in LETTERS]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *words]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def byte_pairs(special: list[str]) -> Tokenizer:
    """A byte-level BPE tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def word_end_pairs(special: list[str]) -> Tokenizer:
    """A BPE tokenizer that marks the ends of words (XLM)."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters = dict.fromkeys(letter.lower() for letter in LETTERS)
    tokens = [*special, *letters, *(f"{letter}</w>" for letter in letters)]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=tokens, end_of_word_suffix="</w>")
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def parts_of(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a BPE tokenizer."""
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def unigrams(special: list[str]) -> list[tuple[str, float]]:
    """A SentencePiece-like unigram vocabulary with scores, special tokens first."""
    counts = {f"▁{word}": count for word, count in WORDS.items() if len(word) <= 6}
    counts |= dict.fromkeys(["▁", *LETTERS], 1)
    total = sum(counts.values())
    return [*((token, 0.0) for token in special), *((piece, log(count / total)) for piece, count in counts.items())]


BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def bert_tokenizer() -> Any:
    return tf.BertTokenizer(vocab=word_pieces(BERT_SPECIAL), model_max_length=MAX_TOKENS)


def roberta_tokenizer() -> Any:
    vocab, merges = parts_of(byte_pairs(ROBERTA_SPECIAL))
    return tf.RobertaTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def bert(vocab: int) -> Any:
    return tf.BertForMaskedLM(tf.BertConfig(vocab_size=vocab, max_position_embeddings=MAX_TOKENS, **SIZES))


def roberta(vocab: int) -> Any:
    # The first two of RoBERTa's positions belong to padding: 514 for 512 tokens.
    config = tf.RobertaConfig(vocab_size=vocab, max_position_embeddings=MAX_TOKENS + 2, type_vocab_size=1, **SIZES)
    return tf.RobertaForMaskedLM(config)


def distilbert(vocab: int) -> Any:
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "initializer_range": SPREAD}
    config = tf.DistilBertConfig(vocab_size=vocab, max_position_embeddings=MAX_TOKENS, **sizes)
    return tf.DistilBertForMaskedLM(config)


def albert_tokenizer() -> Any:
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    return tf.AlbertTokenizer(vocab=unigrams(special), model_max_length=MAX_TOKENS)


def albert(vocab: int) -> Any:
    config = tf.AlbertConfig(vocab_size=vocab, max_position_embeddings=MAX_TOKENS, embedding_size=16, **SIZES)
    return tf.AlbertForMaskedLM(config)


def electra(vocab: int) -> Any:
    # The discriminator, which has no masked-LM head.
    config = tf.ElectraConfig(vocab_size=vocab, max_position_embeddings=MAX_TOKENS, embedding_size=16, **SIZES)
    return tf.ElectraForPreTraining(config)


def ernie(vocab: int) -> Any:
    return tf.ErnieForMaskedLM(
        tf.ErnieConfig(vocab_size=vocab, max_position_embeddings=MAX_TOKENS, task_type_vocab_size=3, **SIZES)
    )


def xlnet_tokenizer() -> Any:
    special = ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"]
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return tf.XLNetTokenizer(vocab=unigrams(special), model_input_names=inputs)  # no limit, as the real one


def xlnet(vocab: int) -> Any:
    sizes = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "initializer_range": SPREAD}
    return tf.XLNetLMHeadModel(tf.XLNetConfig(vocab_size=vocab, **sizes))


def xlm_tokenizer(folder: Path) -> Any:
    """XLM's own tokenizer, the only one written in Python."""
    pytest.importorskip("sacremoses", reason="XLM's tokenizer needs sacremoses (the extra 'test' has it)")
    special = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10))]
    vocab, merges = parts_of(word_end_pairs(special))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = "".join(f"{left} {right} 1\n" for left, right in merges)
    (folder / "merges.txt").write_text(lines, encoding="utf-8")
    files = {"vocab_file": str(folder / "vocab.json"), "merges_file": str(folder / "merges.txt")}
    return tf.XLMTokenizer(**files, model_max_length=MAX_TOKENS)


def xlm(vocab: int) -> Any:
    sizes = {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "init_std": SPREAD, "embed_init_std": SPREAD}
    return tf.XLMWithLMHeadModel(tf.XLMConfig(vocab_size=vocab, max_position_embeddings=MAX_TOKENS, **sizes))


def xlmr_tokenizer() -> Any:
    return tf.XLMRobertaTokenizer(vocab=unigrams(ROBERTA_SPECIAL), model_max_length=MAX_TOKENS)


def xlmr(vocab: int) -> Any:
    config = tf.XLMRobertaConfig(vocab_size=vocab, max_position_embeddings=MAX_TOKENS + 2, type_vocab_size=1, **SIZES)
    return tf.XLMRobertaForMaskedLM(config)


def mpnet_tokenizer() -> Any:
    special = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]
    return tf.MPNetTokenizer(vocab=word_pieces(special), model_max_length=MAX_TOKENS)


def mpnet(vocab: int) -> Any:
    return tf.MPNetForMaskedLM(tf.MPNetConfig(vocab_size=vocab, max_position_embeddings=MAX_TOKENS + 2, **SIZES))


def deberta_tokenizer() -> Any:
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    return tf.DebertaV2Tokenizer(vocab=unigrams(special), unk_id=3, model_max_length=MAX_TOKENS)


def deberta(vocab: int) -> Any:
    """The settings that make a DeBERTa-v2 a v3: shared keys, position buckets, no position embeddings."""
    config = tf.DebertaV2Config(
        vocab_size=vocab,
        max_position_embeddings=MAX_TOKENS,
        type_vocab_size=0,
        relative_attention=True,
        max_relative_positions=-1,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        **SIZES,
    )
    return tf.DebertaV2ForMaskedLM(config)


def modernbert_tokenizer() -> Any:
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    tokenizer = byte_pairs(special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **names,
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


def modernbert(vocab: int) -> Any:
    """Global and local attention in turn; 64 tokens to either side, as in the real one."""
    config = tf.ModernBertConfig(
        vocab_size=vocab,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=3,
        cls_token_id=1,
        sep_token_id=2,
        bos_token_id=1,
        eos_token_id=2,
        global_attn_every_n_layers=2,
        local_attention=128,
        **SIZES,
    )
    return tf.ModernBertForMaskedLM(config)


@dataclass(frozen=True)
class Architecture:
    """How to make a tiny model of one architecture, and what is known of it."""

    model: Callable[[int], Any]
    """Vocabulary size to model, with the head that its checkpoints have."""
    tokenizer: Callable[..., Any]
    packs: bool
    """Whether it keeps the texts of a packed row apart."""
    drophead: bool = True
    """Whether its attention layers are known to drophead."""


ARCHITECTURES = {
    "albert": Architecture(albert, albert_tokenizer, packs=True),
    "bert": Architecture(bert, bert_tokenizer, packs=True),
    "deberta-v2": Architecture(deberta, deberta_tokenizer, packs=False),
    "distilbert": Architecture(distilbert, bert_tokenizer, packs=True),
    "electra": Architecture(electra, bert_tokenizer, packs=True),
    "ernie": Architecture(ernie, bert_tokenizer, packs=True),
    "modernbert": Architecture(modernbert, modernbert_tokenizer, packs=True),
    "mpnet": Architecture(mpnet, mpnet_tokenizer, packs=True),
    "roberta": Architecture(roberta, roberta_tokenizer, packs=True),
    "xlm": Architecture(xlm, xlm_tokenizer, packs=False, drophead=False),
    "xlm-roberta": Architecture(xlmr, xlmr_tokenizer, packs=True),
    "xlnet": Architecture(xlnet, xlnet_tokenizer, packs=False, drophead=False),
}
"""By the model type in ``config.json``."""

MODEL_FILES = {
    "albert": "albert",
    "bert": "bert",
    "bert_large": "bert",
    "bert_medium": "bert",
    "bert_mini": "bert",
    "bert_small": "bert",
    "bert_tiny": "bert",
    "berturk": "bert",
    "deberta": "deberta-v2",
    "distilbert": "distilbert",
    "distilroberta": "roberta",
    "electra": "electra",
    "ernie": "ernie",
    "indicbert": "albert",
    "mbert": "bert",
    "mini": "bert",
    "minilm": "bert",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "muril": "bert",
    "pubmedbert": "bert",
    "roberta": "roberta",
    "roberta_large": "roberta",
    "sapbert": "bert",
    "xlm": "xlm",
    "xlmr": "xlm-roberta",
    "xlnet": "xlnet",
}
"""The architecture behind each file of ``conf/model``."""


def build(name: str, folder: Path) -> Path:
    """Save a tiny random model of an architecture as a folder in the hub's format."""
    architecture = ARCHITECTURES[name]
    tokenizer = architecture.tokenizer(folder) if name == "xlm" else architecture.tokenizer()
    torch.manual_seed(0)
    model = architecture.model(len(tokenizer))
    assert model.config.model_type == name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
