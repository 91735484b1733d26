from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM

from mirror import MirrorEncoder
from mirror.config import MaskingConfig, OptimConfig, PretrainBatchConfig
from mirror.pretraining.corpus import MaskedBatches, tokenize_corpus
from mirror.pretraining.module import PretrainModule
from tests.architectures import ARCHITECTURES, MAX_TOKENS, build
from tests.conftest import SENTENCES


def module_of(folder: Path) -> PretrainModule:
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = MirrorEncoder.load(folder).tokenizer
    return PretrainModule(model, MirrorEncoder(model.base_model, tokenizer), OptimConfig(lr=1e-3), 10, [], 0)


MASKED = [name for name in ARCHITECTURES if name not in ("xlnet",)]


@pytest.mark.parametrize("name", MASKED)
def test_logits_of_the_masked_tokens_are_those_of_the_whole_model(name: str, tmp_path: Path) -> None:
    module = module_of(build(name, tmp_path))
    encoder = module.encoder
    corpus = tokenize_corpus(SENTENCES[:20], encoder.tokenizer, MAX_TOKENS, progress=False)
    batch = MaskedBatches(corpus, encoder, PretrainBatchConfig(4096, MAX_TOKENS), MaskingConfig(), 0)[0]
    with torch.no_grad():
        for block, places in zip(batch.blocks, batch.places, strict=True):
            whole = module.model(**encoder.inputs(block)).logits.flatten(0, 1)
            torch.testing.assert_close(module.logits(block, places), whole[places], atol=1e-5, rtol=1e-4)
    assert batch.count > 10
