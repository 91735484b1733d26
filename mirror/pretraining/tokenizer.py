"""A tokenizer learnt from the texts: WordPiece as BERT's, or byte-level BPE as RoBERTa's."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mirror.config import TokenizerConfig, TokenizerKind
from mirror.encoder import hub
from mirror.encoder.backbone import quiet
from mirror.encoder.damage import unloadable
from mirror.errors import MirrorError

BERT_SPECIAL = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
}  # fmt: skip
ROBERTA_SPECIAL = {
    "cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>",
}  # fmt: skip
"""In the order of their ids, which RoBERTa's position ids depend on: padding is 1."""


COVERAGE = 0.9999
"""Share of the text's characters that a WordPiece vocabulary contains; the rarest become unknown."""


def train_tokenizer(texts: Sequence[str], config: TokenizerConfig, max_tokens: int, *, progress: bool) -> Any:
    """Learn a tokenizer of ``config.vocab_size`` entries; the same texts give the same entries.

    Raises:
        MirrorError: the texts do not support so large a vocabulary, or their characters alone take a larger one.
    """
    learn = _word_pieces if config.kind is TokenizerKind.wordpiece else _byte_pairs
    learnt, special = learn(texts, config, progress)
    if learnt.get_vocab_size() < config.vocab_size:
        raise MirrorError(
            f"tokenizer.vocab_size={config.vocab_size} is more than the text supports "
            f"({learnt.get_vocab_size()} entries): lower it, or give more text."
        )
    if learnt.get_vocab_size() > config.vocab_size:
        raise MirrorError(
            f"tokenizer.vocab_size={config.vocab_size} has no room for the single characters of the text and the "
            f"special tokens ({learnt.get_vocab_size()} entries): raise it."
        )
    cls, sep = special["cls_token"], special["sep_token"]
    learnt.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B {sep}",
        special_tokens=[(token, learnt.token_to_id(token)) for token in (cls, sep)],
    )
    return PreTrainedTokenizerFast(tokenizer_object=learnt, model_max_length=max_tokens, **special)


def _word_pieces(texts: Sequence[str], config: TokenizerConfig, progress: bool) -> tuple[Tokenizer, dict[str, str]]:
    special = list(BERT_SPECIAL.values())
    normalizer = normalizers.BertNormalizer(lowercase=config.lowercase)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    def tokenizer(model: Any) -> Tokenizer:
        new = Tokenizer(model)
        new.normalizer, new.pre_tokenizer, new.decoder = normalizer, pre_tokenizer, decoders.WordPiece()
        return new

    # The library numbers the pieces that continue a word in the order of a hash table, which changes each time, and
    # breaks ties among merges by these numbers. Special tokens are numbered in the given order.
    letters = _alphabet(texts, normalizer)
    inner = [f"##{letter}" for letter in letters if len(pre_tokenizer.pre_tokenize_str(f"a{letter}a")) == 1]
    draft = tokenizer(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=[*special, *inner],
        initial_alphabet=letters,
        limit_alphabet=len(letters),
        show_progress=progress,
    )
    draft.train_from_iterator(texts, trainer, length=len(texts))
    learnt = tokenizer(models.WordPiece(draft.get_vocab(), unk_token="[UNK]"))
    learnt.add_special_tokens(special)
    return learnt, BERT_SPECIAL


def _alphabet(texts: Sequence[str], normalizer: Any) -> list[str]:
    """The most frequent characters that make up ``COVERAGE`` of the normalised texts."""
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(text)
    counts: Counter[str] = Counter()
    for character, count in raw.items():
        for letter in normalizer.normalize_str(character):
            if not letter.isspace():
                counts[letter] += count
    wanted, kept, covered = COVERAGE * counts.total(), list[str](), 0
    for letter, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= wanted:
            break
        kept.append(letter)
        covered += count
    return sorted(kept)


def _byte_pairs(texts: Sequence[str], config: TokenizerConfig, progress: bool) -> tuple[Tokenizer, dict[str, str]]:
    learnt = Tokenizer(models.BPE())
    if config.lowercase:
        learnt.normalizer = normalizers.Lowercase()
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # one token per word, at any position
    learnt.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=list(ROBERTA_SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=progress,
    )
    learnt.train_from_iterator(texts, trainer, length=len(texts))
    return learnt, ROBERTA_SPECIAL


def load_tokenizer(path: str) -> Any:
    """An existing tokenizer.

    Raises:
        MirrorError: it cannot be loaded, or has no mask token.
    """
    source = hub.source_of(path, "tokenizer.path")
    reachable = hub.looks_local(source) or hub.go_offline_unless_reachable()
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # the library may raise anything for a foreign folder
        raise unloadable("tokenizer.path", path, error, reachable=reachable) from error
    if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
        raise MirrorError(f"tokenizer.path={path} has no mask or padding token: give a masked language model's.")
    return tokenizer


def opens_word(tokenizer: Any) -> list[bool]:
    """For each entry of the vocabulary, whether a word begins with it.

    WordPiece marks what continues a word (``##``); byte-level BPE and SentencePiece mark what begins one.
    """
    entries: list[str] = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    if any(entry.startswith("##") for entry in entries):
        return [not entry.startswith("##") for entry in entries]
    if any(entry[:1] in ("Ġ", "▁") for entry in entries):
        return [entry[:1] in ("Ġ", "▁") for entry in entries]
    return [True] * len(entries)
