from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForMaskedLM

from mirror import MirrorEncoder, MirrorError
from mirror.config import MaskingConfig, Pooling, PretrainBatchConfig
from mirror.pretraining.corpus import MaskedBatches, tokenize_corpus
from mirror.pretraining.objectives.base import Objective, true_ids
from mirror.pretraining.objectives.retromae import DecoderLayer, RetroMAE
from mirror.pretraining.reader import MaskReader
from tests.architectures import MAX_TOKENS, build
from tests.conftest import SENTENCES

SHARE = 0.6


def naive(layer: DecoderLayer, queries: Tensor, keys: Tensor, at: int, seen: list[int]) -> Tensor:
    """The state of one token, head by head, over the tokens that it sees."""
    size = queries.shape[1] // layer.heads
    parts = []
    for head in range(layer.heads):
        own = slice(head * size, (head + 1) * size)
        query = layer.query(queries[at])[own]
        scores = torch.stack([query @ layer.key(keys[j])[own] / size**0.5 for j in seen]).softmax(0)
        parts.append(sum(score * layer.value(keys[j])[own] for score, j in zip(scores, seen, strict=True)))
    state = layer.attended(queries[at] + layer.out(torch.cat(parts)))
    found: Tensor = layer.fed(state + layer.down(F.gelu(layer.up(state))))
    return found


@pytest.mark.parametrize("enhanced", [False, True], ids=["plain", "enhanced"])
@pytest.mark.parametrize("pooling", [Pooling.mean, Pooling.cls])
@pytest.mark.parametrize("name", ["bert", "roberta", "deberta-v2"])
def test_losses_are_those_of_a_loop_over_the_texts(name: str, pooling: Pooling, enhanced: bool, tmp_path: Path) -> None:
    """Without packing: each text alone, each guess from the tokens it sees."""
    torch.manual_seed(0)
    folder = build(name, tmp_path)
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    encoder = MirrorEncoder(model.base_model, MirrorEncoder.load(folder).tokenizer)
    objective, reader = RetroMAE(model, encoder, SHARE, pooling, enhanced), MaskReader(model, encoder)
    corpus = tokenize_corpus(SENTENCES[:12], encoder.tokenizer, MAX_TOKENS, progress=False)
    batch = MaskedBatches(corpus, encoder, PretrainBatchConfig(4096, MAX_TOKENS), MaskingConfig(), 0)[0]
    with torch.no_grad():
        torch.manual_seed(7)
        terms, states = objective(reader, batch)
        torch.manual_seed(7)
        losses = []
        for block, places, targets in zip(batch.blocks, batch.places, batch.targets, strict=True):
            ids = true_ids(block, places, targets).flatten()
            rows, width = block.text_index.shape
            draws = torch.rand((rows, width, width) if enhanced else (rows, width))
            for text in range(len(block.texts)):
                at = (block.text_index == text).flatten().nonzero()[:, 0]
                row, length = int(at[0]) // width, len(at)
                inside = (at % width).tolist()
                states = model.base_model(input_ids=block.inputs["input_ids"].flatten()[at][None]).last_hidden_state[0]
                vector = states[0] if pooling is Pooling.cls else states.mean(0)
                special = [int(i) in encoder.tokenizer.all_special_ids for i in ids[at]]
                hidden = [not enhanced and not special[i] and draws[row, inside[i]] < SHARE for i in range(length)]
                read = [encoder.tokenizer.mask_token_id if hidden[i] else int(ids[at[i]]) for i in range(length)]
                keys = objective.norm(model.get_input_embeddings()(torch.tensor(read)) + objective.waves[:length])
                keys[0] = vector
                queries = vector + objective.waves[:length] if enhanced else keys
                for i in range(length):
                    if enhanced:
                        ok = [j != i and (j == 0 or draws[row, inside[i], inside[j]] >= SHARE) for j in range(length)]
                    else:
                        ok = [True] * length
                    if hidden[i] or (enhanced and not special[i]):
                        state = naive(objective.decoder, queries, keys, i, [j for j in range(length) if ok[j]])
                        scores = objective.head(state, model.get_output_embeddings()).log_softmax(-1)
                        losses.append(-float(scores[ids[at[i]]]))
    assert len(losses) > 60
    assert float(terms["decoder"].value) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    with torch.no_grad():
        assert terms["loss"] == Objective()(reader, batch).terms["loss"]


def test_what_the_decoder_lacks_the_vector_must_hold(tmp_path: Path) -> None:
    """Its loss reaches the encoder through the vectors."""
    folder = build("bert", tmp_path)
    model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
    encoder = MirrorEncoder(model.base_model, MirrorEncoder.load(folder).tokenizer)
    corpus = tokenize_corpus(SENTENCES[:12], encoder.tokenizer, MAX_TOKENS, progress=False)
    batch = MaskedBatches(corpus, encoder, PretrainBatchConfig(4096, MAX_TOKENS), MaskingConfig(), 0)[0]
    RetroMAE(model, encoder)(MaskReader(model, encoder), batch).terms["decoder"].value.backward()
    layers = model.base_model.encoder.layer
    assert all(float(layer.output.dense.weight.grad.abs().max()) > 0 for layer in layers)


def test_embeddings_of_another_width(tmp_path: Path) -> None:
    model = AutoModelForMaskedLM.from_pretrained(build("albert", tmp_path))
    encoder = MirrorEncoder(model.base_model, MirrorEncoder.load(build("bert", tmp_path)).tokenizer, name="x")
    with pytest.raises(MirrorError, match=r"objective=retromae needs token embeddings as wide as the states: x has"):
        RetroMAE(model, encoder)
