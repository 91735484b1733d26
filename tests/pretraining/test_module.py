import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForMaskedLM

from mirror import MirrorEncoder
from mirror.config import MaskingConfig, PretrainBatchConfig
from mirror.pretraining.corpus import MaskedBatches, tokenize_corpus
from mirror.pretraining.module import PretrainModule
from mirror.pretraining.objectives.base import Objective
from tests.architectures import ARCHITECTURES, MAX_TOKENS, build
from tests.conftest import SENTENCES
from tests.helpers import ADAMW, CONSTANT


def module_of(folder: Path, bag_of_words: float = 0.0, objective: Objective | None = None) -> PretrainModule:
    torch.manual_seed(0)  # for what is not in the folder: electra's is the discriminator
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = MirrorEncoder.load(folder).tokenizer
    encoder = MirrorEncoder(model.base_model, tokenizer)
    return PretrainModule(model, encoder, objective or Objective(), ADAMW, CONSTANT, 10, [], 0, bag_of_words)


MASKED = [name for name in ARCHITECTURES if name not in ("xlnet",)]


@pytest.mark.parametrize("name", MASKED)
def test_logits_of_the_masked_tokens_are_those_of_the_whole_model(name: str, tmp_path: Path) -> None:
    module = module_of(build(name, tmp_path))
    encoder = module.encoder
    corpus = tokenize_corpus(SENTENCES[:20], encoder.tokenizer, MAX_TOKENS, progress=False)
    batch = MaskedBatches(corpus, encoder, PretrainBatchConfig(4096, MAX_TOKENS), MaskingConfig(), 0)[0]
    with torch.no_grad():
        for block, places in zip(batch.blocks, batch.places, strict=True):
            whole = module.model(**encoder.layout.inputs(block)).logits.flatten(0, 1)
            torch.testing.assert_close(module.logits(block, places), whole[places], atol=1e-5, rtol=1e-4)
    assert batch.count > 10


@pytest.mark.parametrize("name", MASKED)
def test_bag_of_words_is_that_of_a_loop_over_the_texts(name: str, tmp_path: Path) -> None:
    """Text by text, without packing, with each word of the text looked up in the scores of its mean vector."""
    folder = build(name, tmp_path)
    module, guesses = module_of(folder, 2.0), module_of(folder)
    for each in (module, guesses):
        each.trainer = SimpleNamespace(world_size=1)  # type: ignore[assignment]
        each.log = lambda *arguments, **options: None  # type: ignore[method-assign]
    encoder, model = module.encoder, module.model
    corpus = tokenize_corpus(SENTENCES[:20], encoder.tokenizer, MAX_TOKENS, progress=False)
    data = MaskedBatches(corpus, encoder, PretrainBatchConfig(4096, MAX_TOKENS), MaskingConfig(), 0)
    batch = data[0]
    special = set(encoder.tokenizer.all_special_ids)
    embeddings, head = model.get_output_embeddings(), module.bag_of_words
    assert head is not None
    layer, norm, bias = head.layer, head.norm, head.bias
    held, texts = [], 0
    for block, places, targets in zip(batch.blocks, batch.places, batch.targets, strict=True):
        seen = block.inputs["input_ids"].flatten()
        true = seen.clone()
        true[places] = targets
        for text in range(len(block.texts)):
            here = (block.text_index == text).flatten()
            mean = model.base_model(input_ids=seen[here][None]).last_hidden_state[0].mean(0)
            scores = (norm(layer(mean)) @ embeddings.weight.T + bias).log_softmax(-1)
            held += [-scores[token].item() for token in set(true[here].tolist()) - special]
            texts += 1
    assert texts == 20
    assert len(held) == batch.word_count
    with torch.no_grad():
        ours, theirs = module.training_step(batch, 0), guesses.training_step(batch, 0)
    added = ours["loss"] - theirs["loss"]
    assert ours["masked"] == theirs["masked"] == theirs["loss"]
    torch.testing.assert_close(float(added), 2.0 * sum(held) / len(held), atol=1e-4, rtol=1e-4)


def test_a_perplexity_that_rises_is_told(tiny_bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = module_of(tiny_bert)
    module.trainer = SimpleNamespace(is_global_zero=True, global_step=5)  # type: ignore[assignment]
    module.log = lambda *arguments, **options: None  # type: ignore[method-assign]
    for perplexity in (90.0, 60.0, 89.0):
        module._held_out = [math.log(perplexity) * 7, 7]
        module.on_validation_epoch_end()
    assert "unstable" not in caplog.text
    module._held_out = [math.log(91.0) * 7, 7]
    module.on_validation_epoch_end()
    assert "the perplexity was 60.00 before: training has become unstable" in caplog.text
