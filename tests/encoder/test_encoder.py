"""The encoder: pooling against plain transformers, packing against padding, what it refuses to load."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from mirror import MirrorEncoder, MirrorError
from mirror.config import Pooling
from mirror.encoder.packing import TokenBlock
from tests.architectures import ARCHITECTURES, build
from tests.conftest import SENTENCES

TEXTS = [*SENTENCES[::17], "Hm.", "", " ".join(SENTENCES[:3])]
PACKING = sorted(name for name, architecture in ARCHITECTURES.items() if architecture.packs)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("bert", tmp_path_factory.mktemp("bert") / "bert")


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("roberta", tmp_path_factory.mktemp("roberta") / "roberta")


def reference(folder: Path, texts: list[str], pooling: Pooling, pad_to: int) -> list[NDArray[np.float32]]:
    """Vectors from transformers alone, one text at a time."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    fixed = {"padding": "max_length", "max_length": pad_to} if pooling is Pooling.mean_padded else {}
    vectors = []
    for text in texts:
        with torch.no_grad():
            output = model(**tokenizer(text, truncation=True, return_tensors="pt", **fixed), output_hidden_states=True)
        states = [state[0] for state in output.hidden_states]  # the embeddings, then each layer, each (tokens, D)
        poolings: dict[Pooling, Callable[[list[torch.Tensor]], torch.Tensor]] = {
            Pooling.cls: lambda states: states[-1][0],
            Pooling.mean: lambda states: states[-1].mean(dim=0),
            Pooling.max: lambda states: states[-1].amax(dim=0),
            Pooling.first_last: lambda states: (states[1].mean(dim=0) + states[-1].mean(dim=0)) / 2,
            Pooling.last_two: lambda states: (states[-2].mean(dim=0) + states[-1].mean(dim=0)) / 2,
            Pooling.concat: lambda states: torch.cat([states[-1][0], states[-1].amax(dim=0), states[-1].mean(dim=0)]),
            Pooling.layers: lambda states: torch.stack(states[1:]).mean(dim=(0, 1)),
            Pooling.mean_padded: lambda states: states[-1].mean(dim=0),
        }
        vectors.append(np.asarray(poolings[pooling](states)))
    return vectors


# --- pooling


@pytest.mark.parametrize("packing", [True, False])
def test_attention_pooling_is_its_formula(packing: bool, bert: Path, tmp_path: Path) -> None:
    """Against a loop over texts and heads; it is saved with its query."""
    part = {"_target_": "mirror.encoder.attention.AttentionPooling", "heads": 2}
    encoder = MirrorEncoder.load(bert, part)
    encoder.layout.packing = packing
    np.testing.assert_allclose(encoder.encode(TEXTS), MirrorEncoder.load(bert, "mean").encode(TEXTS), atol=1e-5)
    query = torch.randn(2, encoder.dimension // 2)
    encoder.pooling.load_state_dict({"stages.0.query": query})
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    model = transformers.AutoModel.from_pretrained(bert, dtype=torch.float32).eval()
    expected = []
    with torch.no_grad():
        for text in TEXTS:
            (states,) = model(**tokenizer(text, truncation=True, return_tensors="pt")).last_hidden_state  # (tokens, D)
            heads = zip(states.chunk(2, dim=1), query, strict=True)
            expected.append(torch.cat([(piece @ one).softmax(0) @ piece for piece, one in heads]))
        rows = encoder(encoder.layout.blocks(encoder.layout.tokenize(TEXTS)))
    torch.testing.assert_close(rows, torch.stack(expected), rtol=1e-4, atol=1e-5)
    encoder.save(tmp_path / "saved")
    np.testing.assert_allclose(MirrorEncoder.load(tmp_path / "saved").encode(TEXTS), rows.numpy(), atol=1e-5)


def test_attention_of_heads_that_do_not_divide_the_states(bert: Path) -> None:
    with pytest.raises(MirrorError, match=r"heads=5 does not divide"):
        MirrorEncoder.load(bert, {"_target_": "mirror.encoder.attention.AttentionPooling", "heads": 5})


@pytest.mark.parametrize("pooling", list(Pooling))
def test_pooling_is_what_its_name_says(bert: Path, pooling: Pooling) -> None:
    encoder = MirrorEncoder.load(bert, pooling)
    encoder.layout.pad_to = 100 if pooling is Pooling.mean_padded else None
    expected = reference(bert, TEXTS, pooling, 100)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    with torch.no_grad():  # as training lays them out: packed, unless the padding is fixed
        rows = encoder(encoder.layout.blocks(encoder.layout.tokenize(TEXTS)))
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_poolings_differ(bert: Path) -> None:
    encoder = MirrorEncoder.load(bert)
    vectors = []
    for pooling in Pooling:
        if pooling is Pooling.concat:
            continue  # of another size
        encoder.pooling = encoder.make_pooling(pooling)
        encoder.layout.pad_to = 100 if pooling is Pooling.mean_padded else None
        vectors.append(encoder.encode(TEXTS[0]))
    assert all(np.abs(a - b).max() > 0.01 for i, a in enumerate(vectors) for b in vectors[:i])


def test_cls_ends_the_text_in_xlnet(tmp_path: Path) -> None:
    folder = build("xlnet", tmp_path / "xlnet")
    with pytest.raises(MirrorError, match=r"model\.pooling=concat: .* choose cls or mean"):
        MirrorEncoder.load(folder, "concat")
    encoder = MirrorEncoder.load(folder)
    tokens = encoder.layout.tokenize([SENTENCES[0]])
    assert encoder.tokenizer.convert_ids_to_tokens(tokens["input_ids"][0])[-2:] == ["<sep>", "<cls>"]
    assert tokens["token_type_ids"][0][-1] == 2
    (block,) = encoder.layout.blocks(tokens)
    assert block.cls_index.tolist() == [len(tokens["input_ids"][0]) - 1]


def test_pooler_is_left_alone(bert: Path) -> None:
    encoder = MirrorEncoder.load(bert)
    assert not any(p.requires_grad for p in encoder.backbone.pooler.parameters())
    encoder(encoder.layout.blocks(encoder.layout.tokenize(TEXTS))).sum().backward()
    assert all(p.grad is None for p in encoder.backbone.pooler.parameters())
    assert encoder.backbone.embeddings.word_embeddings.weight.grad is not None


# --- encode


def test_a_string_gives_a_vector_and_a_list_rows(bert: Path) -> None:
    encoder = MirrorEncoder.load(bert)
    one, two = encoder.encode("Hello."), encoder.encode(["Hello.", "World."])
    assert (one.shape, two.shape) == ((32,), (2, 32))
    assert one.dtype == two.dtype == np.float32
    np.testing.assert_allclose(one, two[0], atol=1e-6)


def test_no_texts_give_no_rows(bert: Path) -> None:
    assert MirrorEncoder.load(bert).encode([]).shape == (0, 32)


def test_the_empty_text_has_a_vector(bert: Path) -> None:
    encoder = MirrorEncoder.load(bert, Pooling.mean)
    assert np.isfinite(encoder.encode("")).all()
    np.testing.assert_allclose(encoder.encode(["", "Hello."])[0], encoder.encode(""), atol=1e-6)


def test_what_is_no_string_is_named(bert: Path) -> None:
    wrong: Any = ["Hello.", 7]
    with pytest.raises(MirrorError, match=r"texts\[1\] is not a string: 7"):
        MirrorEncoder.load(bert).encode(wrong)


def test_encoding_leaves_no_trace(bert: Path) -> None:
    encoder = MirrorEncoder.load(bert)
    encoder.train()
    first = encoder.encode(TEXTS)
    assert encoder.training
    assert encoder.backbone.training
    np.testing.assert_array_equal(encoder.encode(TEXTS), first)  # without dropout all the same


def test_long_texts_are_cut(bert: Path) -> None:
    encoder = MirrorEncoder.load(bert, max_tokens=8)
    long = "guitar " * 5000
    assert [len(ids) for ids in encoder.layout.tokenize([long])["input_ids"]] == [8]
    np.testing.assert_allclose(encoder.encode(long), encoder.encode("guitar " * 6), atol=1e-5)
    assert MirrorEncoder.load(bert).encode([long]).shape == (1, 32)


def test_max_tokens_is_never_more_than_the_model_takes(bert: Path, roberta: Path, tmp_path: Path) -> None:
    assert MirrorEncoder.load(bert, max_tokens=10_000).max_tokens == 128
    # RoBERTa has 130 positions, but its first two belong to padding, and some tokenizers know no limit.
    unlimited = shutil.copytree(roberta, tmp_path / "roberta")
    settings = unlimited / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps(content | {"model_max_length": 10**30}))
    encoder = MirrorEncoder.load(unlimited)
    assert encoder.max_tokens == 128
    assert np.isfinite(encoder.encode("guitar " * 500)).all()
    with torch.no_grad():
        assert torch.isfinite(encoder(encoder.layout.blocks(encoder.layout.tokenize(["guitar " * 500, *TEXTS])))).all()


def test_similarity_is_the_cosine(bert: Path) -> None:
    encoder = MirrorEncoder.load(bert, Pooling.mean)
    a, b = encoder.encode(TEXTS[:3]), encoder.encode(TEXTS[3:5])
    expected = [[float(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) for y in b] for x in a]
    np.testing.assert_allclose(encoder.similarity(TEXTS[:3], TEXTS[3:5]), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.similarity(a, b), expected, atol=1e-5)
    assert encoder.similarity(TEXTS[0], TEXTS[0])[0, 0] == pytest.approx(1.0, abs=1e-5)


# --- packing


def all_seeing(block: TokenBlock, dtype: torch.dtype) -> torch.Tensor:
    """A mask that hides nothing, in place of the one that keeps texts apart."""
    rows, width = block.text_index.shape
    return torch.zeros(rows, 1, width, width, dtype=dtype)


@pytest.mark.parametrize("name", PACKING)
def test_packed_equals_padded(name: str, tmp_path: Path) -> None:
    encoder = MirrorEncoder.load(build(name, tmp_path / name), Pooling.mean)
    tokens = encoder.layout.tokenize(TEXTS, 50)
    (rows,) = encoder.layout.blocks(tokens)
    assert rows.packed
    assert len(rows.text_index) < len(TEXTS)  # several texts in a row, or there is nothing to show
    encoder.layout.packing = False
    padded = encoder.layout.blocks(tokens)
    assert not any(block.packed for block in padded)
    with torch.no_grad():
        exact = encoder(padded)
        torch.testing.assert_close(encoder([rows]), exact, atol=1e-5, rtol=0)
        with torch.autocast("cpu", torch.bfloat16):
            vectors, expected = encoder([rows]), encoder(padded)
    # Both are roundings of the same vectors, so no further apart than twice what rounding moves: by 0.4 to 0.7 % here.
    rounding = (expected - exact).norm()
    assert rounding < 0.05 * exact.norm()
    assert (vectors - expected).norm() <= 2 * rounding


def test_positions_follow_the_padding_id_in_roberta(bert: Path, roberta: Path) -> None:
    assert MirrorEncoder.load(bert).layout.first_position(64) == 0
    encoder = MirrorEncoder.load(roberta)
    assert encoder.tokenizer.pad_token_id == 1
    assert encoder.layout.first_position(64) == 2
    (rows,) = encoder.layout.blocks(encoder.layout.tokenize(TEXTS, 50))
    assert rows.position[rows.text_index >= 0].min() == 2


def test_packs_through_the_wrapper_of_peft(bert: Path) -> None:
    peft = pytest.importorskip("peft")
    plain = MirrorEncoder.load(bert, "mean")
    adapters = peft.LoraConfig(target_modules=["query", "value"], init_lora_weights=False)
    encoder = MirrorEncoder(peft.get_peft_model(plain.backbone, adapters), plain.tokenizer, "mean")
    tokens = encoder.layout.tokenize(SENTENCES[:20])
    packed = encoder.layout.blocks(tokens)
    assert all(block.packed for block in packed)
    with torch.no_grad():
        torch.testing.assert_close(encoder(packed), encoder(encoder.layout.padded(tokens)), atol=1e-5, rtol=1e-4)


def test_mpnet_packs_with_its_relative_positions(tmp_path: Path) -> None:
    """Its bias depends on the distance of two tokens alone, which is the same anywhere in a row."""
    encoder = MirrorEncoder.load(build("mpnet", tmp_path / "mpnet"))
    torch.nn.init.normal_(encoder.backbone.encoder.relative_attention_bias.weight, std=2.0)
    tokens = encoder.layout.tokenize(TEXTS, 50)
    (rows,) = encoder.layout.blocks(tokens)
    encoder.layout.packing = False
    with torch.no_grad():
        torch.testing.assert_close(encoder([rows]), encoder(encoder.layout.blocks(tokens)), atol=1e-5, rtol=0)


def test_modernbert_packs_rows_within_its_window_only(tmp_path: Path) -> None:
    """Its local layers see 64 tokens to either side, which a mask for the whole row does not say."""
    encoder = MirrorEncoder.load(build("modernbert", tmp_path / "modernbert"))
    assert encoder.layout.first_position(64) == 0
    assert encoder.layout.first_position(128) is None
    tokens = encoder.layout.tokenize(["guitar " * 100, *SENTENCES[:5]])
    blocks = encoder.layout.blocks(tokens)
    assert not any(block.packed for block in blocks)


def test_a_backbone_that_ignores_the_mask_does_not_pack(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TokenBlock, "additive_mask", all_seeing)
    assert MirrorEncoder.load(bert).layout.first_position(64) is None


def test_mixed_texts_are_noticed_in_untrained_models(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the usual random start attention adds little, and so does mixing: the probe needs a sharp eye."""
    monkeypatch.setattr(TokenBlock, "additive_mask", all_seeing)
    for width in (64, 128):
        assert MirrorEncoder.load(tiny_bert).layout.first_position(width) is None


def test_a_backbone_that_ignores_positions_does_not_pack(bert: Path) -> None:
    encoder = MirrorEncoder.load(bert)
    forward = encoder.backbone.forward

    def without_positions(position_ids: Any = None, **inputs: Any) -> Any:
        return forward(**inputs)

    encoder.backbone.forward = without_positions
    assert encoder.layout.first_position(64) is None


def test_the_additive_mask_is_right_under_eager_attention(bert: Path) -> None:
    encoder = MirrorEncoder.load(bert)
    tokens = encoder.layout.tokenize(TEXTS, 50)
    with torch.no_grad():
        expected = encoder(encoder.layout.blocks(tokens))
        encoder.backbone.set_attn_implementation("eager")
        (rows,) = encoder.layout.blocks(tokens)
        torch.testing.assert_close(encoder([rows]), expected, atol=1e-5, rtol=0)


# --- loading


def test_saved_pooling_travels_and_another_is_warned_of(
    bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    MirrorEncoder.load(bert, "mean", max_tokens=40).save(tmp_path / "saved")
    again = MirrorEncoder.load(tmp_path / "saved")
    assert (again.pooling.name, again.max_tokens) == ("mean", 40)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert MirrorEncoder.load(tmp_path / "saved", "max").pooling.name == "max"
    assert "saved with mean pooling and is pooled by max" in caplog.text


def test_weights_are_float32_whatever_the_file_holds(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "half")
    transformers.AutoModel.from_pretrained(bert, dtype=torch.bfloat16).save_pretrained(folder)
    assert MirrorEncoder.load(folder).backbone.dtype is torch.float32


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="does not exist: give a model folder or a hub name"):
        MirrorEncoder.load(tmp_path / "nothing")


def test_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"is no model folder: it has no config\.json"):
        MirrorEncoder.load(tmp_path)


def test_hub_name_without_a_hub() -> None:
    with pytest.raises(MirrorError, match=r"hub cannot be reached: give a local folder"):
        MirrorEncoder.load("nobody/no-such-model")


def test_decoder_only_models(bert: Path, tmp_path: Path) -> None:
    sizes = {"vocab_size": 300, "num_hidden_layers": 1, "num_attention_heads": 2}
    gpt2 = transformers.GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2)
    llama = transformers.LlamaConfig(hidden_size=32, intermediate_size=32, num_key_value_heads=2, **sizes)
    decoder = transformers.BertConfig(hidden_size=32, intermediate_size=32, is_decoder=True, **sizes)
    models = {
        "gpt2": transformers.GPT2LMHeadModel(gpt2),
        "llama": transformers.LlamaForCausalLM(llama),
        "bert": transformers.BertLMHeadModel(decoder),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        shutil.copy(bert / "tokenizer.json", tmp_path / name)
        with pytest.raises(MirrorError, match=f"is a {name} model, which does not read text in both directions"):
            MirrorEncoder.load(tmp_path / name)


def test_encoder_decoder_model(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=300, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    with pytest.raises(MirrorError, match="is a t5 model, which does not read text in both directions"):
        MirrorEncoder.load(tmp_path / "t5")


def test_tokenizer_of_another_model(bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bert, tmp_path / "mixed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    tokenizer.add_tokens(["one", "too", "many"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(MirrorError, match="they do not belong together"):
        MirrorEncoder.load(folder)


@pytest.mark.parametrize("damage", ["cut", "missing", "garbled config"])
def test_damaged_model_folder(bert: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(bert, tmp_path / "damaged")
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "missing":
        weights.unlink()
    else:
        (folder / "config.json").write_text("{")
    with pytest.raises(MirrorError, match="cannot be loaded"):
        MirrorEncoder.load(folder)


def test_model_without_a_tokenizer(bert: Path, tmp_path: Path) -> None:
    """Transformers makes up an empty one that knows no word."""
    folder = shutil.copytree(bert, tmp_path / "mute", ignore=shutil.ignore_patterns("tokenizer*", "vocab*"))
    with pytest.raises(MirrorError, match="tokenizer"):
        MirrorEncoder.load(folder)


def test_encodes_any_iterable_of_strings(tiny_bert: Path) -> None:
    import pandas as pd

    encoder = MirrorEncoder.load(tiny_bert)
    texts = ["one text", "another, longer text"]
    expected = encoder.encode(texts)
    for same in (tuple(texts), iter(texts), np.array(texts), pd.Series(texts, index=[7, 3]), dict.fromkeys(texts)):
        np.testing.assert_array_equal(encoder.encode(same), expected)


@pytest.mark.parametrize("texts", [None, 3, [None], ["half \udc00"], b"bytes", np.array([1.0])])
def test_encode_refuses_what_is_no_text(tiny_bert: Path, texts: Any) -> None:
    with pytest.raises(MirrorError, match=r"^texts"):
        MirrorEncoder.load(tiny_bert).encode(texts)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pooling": "foo"}, "pooling=foo is no pooling"),
        ({"pooling": 3}, "pooling=3 is no pooling"),
        ({"max_tokens": -1}, "max_tokens=-1 is out of range"),
        ({"max_tokens": "x"}, "max_tokens=x is out of range"),
        ({"keep_layers": []}, r"keep_layers=\[\]: give the numbers"),
        ({"keep_layers": 3}, "keep_layers=3: give the numbers"),
        ({"keep_layers": ["a"]}, r"keep_layers=\['a'\]: give the numbers"),
    ],
)
def test_load_refuses(tiny_bert: Path, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(MirrorError, match=reason):
        MirrorEncoder.load(tiny_bert, **settings)


def test_arguments_of_another_kind(tiny_bert: Path) -> None:
    encoder = MirrorEncoder.load(tiny_bert)
    vectors = np.zeros((2, 5), np.float32)
    wrong: list[tuple[Any, str]] = [
        (lambda: encoder.encode(["a"], batch_tokens=0), "^batch_tokens=0 is out of range"),
        (lambda: encoder.encode(["a"], batch_tokens="x"), "^batch_tokens=x is out of range"),  # type: ignore[arg-type]
        (
            lambda: encoder.similarity(vectors, "a"),
            r"^vectors=\(2, 5\) is out of range: .* rows of 32 numbers",
        ),
        (lambda: encoder.save(3), "^folder=3 is no folder"),  # type: ignore[arg-type]
        (
            lambda: encoder.save(tiny_bert / "config.json" / "x"),
            "cannot be written .File exists.: choose another folder",
        ),
        (lambda: encoder.make_pooling("nope"), "^pooling=nope is no pooling"),
    ]
    for call, reason in wrong:
        with pytest.raises(MirrorError, match=reason):
            call()
    assert encoder.similarity(np.array(["a", "b"]), encoder.encode(["a"]).astype(float)).shape == (2, 1)


def test_a_model_is_known_by_its_name() -> None:
    vectors = MirrorEncoder.load("mini", "mean").encode(["a text"])
    np.testing.assert_array_equal(MirrorEncoder.load("bundled:mini", "mean").encode(["a text"]), vectors)
