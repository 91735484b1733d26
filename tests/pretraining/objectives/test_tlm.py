from itertools import pairwise
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM

from mirror import MirrorEncoder, MirrorError
from mirror.config import MaskingConfig, PretrainBatchConfig
from mirror.pretraining.corpus import MaskedBatches
from mirror.pretraining.objectives.base import true_ids
from mirror.pretraining.objectives.tlm import TranslationLanguageModelling
from mirror.pretraining.reader import MaskReader
from tests.architectures import MAX_TOKENS, build
from tests.conftest import SENTENCES

PAIRS = list(pairwise(SENTENCES[:13]))


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_pairs_are_laid_out_as_the_tokenizer_does(name: str, tmp_path: Path) -> None:
    tokenizer = MirrorEncoder.load(build(name, tmp_path)).tokenizer
    for longest in (MAX_TOKENS, 16):
        corpus = TranslationLanguageModelling.corpus(PAIRS, tokenizer, longest, progress=False)
        assert len(corpus) == len(PAIRS)
        for i, (left, right) in enumerate(PAIRS):
            expected = tokenizer(left, right, truncation=True, max_length=longest)["input_ids"]
            piece = corpus.ids[corpus.starts[i] : corpus.starts[i + 1]].tolist()
            assert [tokenizer.cls_token_id, *piece, tokenizer.sep_token_id] == expected
            assert tokenizer.sep_token_id in piece


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_loss_is_that_of_a_loop_over_the_pairs(name: str, tmp_path: Path) -> None:
    """Each pair alone, as the model reads it: masks on both sides, none on the separator."""
    folder = build(name, tmp_path)
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    encoder = MirrorEncoder(model.base_model, MirrorEncoder.load(folder).tokenizer)
    corpus = TranslationLanguageModelling.corpus(PAIRS, encoder.tokenizer, MAX_TOKENS, progress=False)
    batch = MaskedBatches(corpus, encoder, PretrainBatchConfig(4096, MAX_TOKENS), MaskingConfig(0.4), 0)[0]
    with torch.no_grad():
        terms, _ = TranslationLanguageModelling()(MaskReader(model, encoder), batch)
    losses, sides = [], set()
    for block, places, targets in zip(batch.blocks, batch.places, batch.targets, strict=True):
        ids, seen = true_ids(block, places, targets).flatten(), block.inputs["input_ids"].flatten()
        for text in range(len(block.texts)):
            at = (block.text_index == text).flatten().nonzero()[:, 0]
            with torch.no_grad():
                scores = model(input_ids=seen[at][None]).logits[0].log_softmax(-1)
            middle = ids[at].tolist().index(encoder.tokenizer.sep_token_id)
            for i in range(len(at)):
                if at[i] in places:
                    losses.append(-float(scores[i, ids[at[i]]]))
                    sides.add(i < middle)
                    assert ids[at[i]] != encoder.tokenizer.sep_token_id
    assert sides == {True, False}
    assert float(terms["loss"].value) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_a_text_is_no_translation_of_itself(tmp_path: Path) -> None:
    tokenizer = MirrorEncoder.load(build("bert", tmp_path)).tokenizer
    with pytest.raises(MirrorError, match="the two texts of each pair are the same"):
        TranslationLanguageModelling.corpus([(text, text) for text in SENTENCES], tokenizer, 32, progress=False)
