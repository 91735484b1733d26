from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForPreTraining, ElectraConfig, ElectraForPreTraining

from mirror import MirrorEncoder
from mirror.config import MaskingConfig, PretrainBatchConfig
from mirror.pretraining.corpus import MaskedBatches, tokenize_corpus
from mirror.pretraining.objectives.base import true_ids
from mirror.pretraining.objectives.electra import Electra
from mirror.pretraining.reader import MaskReader
from tests.architectures import MAX_TOKENS
from tests.conftest import SENTENCES


def parts(folder: Path, **settings: Any) -> tuple[Any, MirrorEncoder, Electra]:
    tokenizer = MirrorEncoder.load(folder).tokenizer
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "embedding_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    config = ElectraConfig(vocab_size=len(tokenizer), num_hidden_layers=2, initializer_range=0.2, **sizes)
    model = ElectraForPreTraining(config).eval()
    encoder = MirrorEncoder(model.base_model, tokenizer)
    return model, encoder, Electra(model, encoder, 0.0, **settings).eval()


def test_losses_are_those_of_a_loop_over_the_texts(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without packing; both models read each text alone."""
    model, encoder, objective = parts(tiny_bert, generator=0.5, weight=7.0)
    corpus = tokenize_corpus(SENTENCES[:12], encoder.tokenizer, MAX_TOKENS, progress=False)
    batch = MaskedBatches(corpus, encoder, PretrainBatchConfig(4096, MAX_TOKENS), MaskingConfig(0.3), 0)[0]
    shown = []
    draw = Electra.replaced

    def note(*arguments: torch.Tensor) -> torch.Tensor:
        shown.append(draw(*arguments))
        return shown[-1]

    monkeypatch.setattr(Electra, "replaced", staticmethod(note))
    with torch.no_grad():
        terms, states = objective(MaskReader(model, encoder), batch)
        guessed, told, fooled = [], [], 0
        for block, places, targets, ids in zip(batch.blocks, batch.places, batch.targets, shown, strict=True):
            true = true_ids(block, places, targets).flatten()
            assert torch.equal(ids.flatten()[places] != true[places], (ids.flatten() != true)[places])
            for text in range(len(block.texts)):
                at = (block.text_index == text).flatten().nonzero()[:, 0]
                masked = block.inputs["input_ids"].flatten()[at][None]
                scores = objective.generator(input_ids=masked).logits[0].log_softmax(-1)
                replaced = ids.flatten()[at]
                probabilities = model(input_ids=replaced[None]).logits[0].sigmoid()
                for i in range(len(at)):
                    if at[i] in places:
                        guessed.append(-float(scores[i, true[at[i]]]))
                    fake = bool(replaced[i] != true[at[i]])
                    fooled += fake
                    told.append(-float((probabilities[i] if fake else 1 - probabilities[i]).log()))
    assert 20 < fooled <= len(guessed)
    assert float(terms["loss"].value) == pytest.approx(sum(guessed) / len(guessed), rel=1e-4)
    assert float(terms["replaced"].value) == pytest.approx(sum(told) / len(told), rel=1e-4)
    assert (terms["loss"].weight, terms["replaced"].weight) == (1.0, 7.0)
    assert states[0].shape == (*batch.blocks[0].text_index.shape, 32)


def test_tokens_are_drawn_by_their_probabilities() -> None:
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0]).expand(40_000, 4)
    torch.manual_seed(0)
    drawn = Electra.replaced(torch.full((1, 40_002), 9), torch.arange(1, 40_001), scores)
    assert drawn[0, 0] == drawn[0, -1] == 9
    shares = drawn[0, 1:-1].bincount() / 40_000
    torch.testing.assert_close(shares, scores[0].softmax(-1), atol=0.01, rtol=0)


def test_the_generator_is_small_and_has_the_model_s_embeddings(tiny_bert: Path) -> None:
    model, _, objective = parts(tiny_bert, generator=0.25)
    config = objective.generator.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 8, 1)
    shared = model.electra.embeddings.word_embeddings.weight
    assert objective.generator.electra.embeddings.word_embeddings.weight is shared
    assert objective.generator.generator_lm_head.weight is shared
    assert objective.generator.electra.embeddings.position_embeddings is model.electra.embeddings.position_embeddings
    own = sum(weights.numel() for weights in objective.generator.electra.encoder.parameters())
    assert own < 0.2 * sum(weights.numel() for weights in model.electra.encoder.parameters())


def test_the_discriminator_does_not_teach_the_generator_s_guesses(tiny_bert: Path) -> None:
    """Nothing flows back through the drawn tokens."""
    model, encoder, objective = parts(tiny_bert)
    corpus = tokenize_corpus(SENTENCES[:12], encoder.tokenizer, MAX_TOKENS, progress=False)
    batch = MaskedBatches(corpus, encoder, PretrainBatchConfig(4096, MAX_TOKENS), MaskingConfig(0.3), 0)[0]
    objective(MaskReader(model, encoder), batch).terms["replaced"].value.backward()
    assert all(weights.grad is None for weights in objective.generator.electra.encoder.parameters())
    assert float(model.discriminator_predictions.dense.weight.grad.abs().max()) > 0


def test_saved_is_an_electra(tiny_bert: Path, tmp_path: Path) -> None:
    model, *_ = parts(tiny_bert)
    model.save_pretrained(tmp_path / "model")
    assert isinstance(AutoModelForPreTraining.from_pretrained(tmp_path / "model"), ElectraForPreTraining)
