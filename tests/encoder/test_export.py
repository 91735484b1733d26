"""The saved folder: whole or absent, and read alike by mirror, transformers and sentence-transformers."""

import errno
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from mirror import MirrorEncoder, MirrorError
from mirror.config import Pooling
from mirror.encoder.dense import Normalize
from mirror.encoder.export import read_folder, save_tokenizer, write_whole
from mirror.encoder.pooling import TextPooling, layer_weights
from mirror.encoder.stages import LayerMix, TokenPooling
from tests.architectures import build
from tests.conftest import SENTENCES, files_no_larger_than

TEXTS = [*SENTENCES[::17], "Hm.", " ".join(SENTENCES[:4])]
PORTABLE = [pooling for pooling in Pooling if pooling is not Pooling.mean_padded]
"""What sentence-transformers can do too."""


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("bert", tmp_path_factory.mktemp("bert") / "bert")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def normalizes(encoder: MirrorEncoder) -> bool:
    return any(isinstance(stage, Normalize) for stage in encoder.pooling.stages)


# --- round trips


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", PORTABLE)
def test_sentence_transformers_gives_the_same_vectors(
    bert: Path, tmp_path: Path, pooling: Pooling, normalize: bool
) -> None:
    other = pytest.importorskip("sentence_transformers")
    encoder = MirrorEncoder.load(bert, pooling, max_tokens=20)
    encoder.pooling = encoder.make_pooling(pooling, normalize=normalize)
    encoder.save(tmp_path / "saved")
    expected = encoder.encode(TEXTS)
    assert np.allclose(np.linalg.norm(expected, axis=1), 1) is normalize

    again = MirrorEncoder.load(tmp_path / "saved")
    assert (again.pooling.name, again.max_tokens, normalizes(again)) == (pooling.value, 20, normalize)
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-6)

    theirs = other.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert theirs.max_seq_length == 20
    np.testing.assert_allclose(theirs.encode(TEXTS), expected, atol=1e-5)


def test_transformers_loads_the_folder_whole(bert: Path, tmp_path: Path) -> None:
    encoder = MirrorEncoder.load(bert)
    encoder.save(tmp_path / "saved")
    backbone, info = transformers.AutoModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for name, weight in encoder.backbone.state_dict().items():
        torch.testing.assert_close(backbone.state_dict()[name], weight, rtol=0, atol=0)


def test_a_tokenizer_without_a_class_has_the_name_that_transformers_4_knows(bert: Path, tmp_path: Path) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(bert)
    tokenizer.save_pretrained(tmp_path / "theirs")
    save_tokenizer(tokenizer, tmp_path / "ours")
    assert read(tmp_path / "theirs" / "tokenizer_config.json")["tokenizer_class"] == "TokenizersBackend"
    assert read(tmp_path / "ours" / "tokenizer_config.json")["tokenizer_class"] == "PreTrainedTokenizerFast"
    both = [
        transformers.AutoTokenizer.from_pretrained(tmp_path / name)(TEXTS)["input_ids"] for name in ("ours", "theirs")
    ]
    assert both[0] == both[1]


def test_padded_mean_is_read_back_with_its_width(bert: Path, tmp_path: Path) -> None:
    encoder = MirrorEncoder.load(bert, max_tokens=60)
    encoder.pooling = encoder.make_pooling(Pooling.mean_padded)
    encoder.layout.fix_width(60)
    encoder.save(tmp_path / "saved")
    again = MirrorEncoder.load(tmp_path / "saved")
    assert (again.pooling.name, again.layout.pad_to, again.max_tokens) == ("mean_padded", 60, 60)
    np.testing.assert_allclose(again.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_saving_a_saved_encoder_changes_nothing(bert: Path, tmp_path: Path) -> None:
    MirrorEncoder.load(bert, "last_two").save(tmp_path / "one")
    MirrorEncoder.load(tmp_path / "one").save(tmp_path / "two")
    MirrorEncoder.load(tmp_path / "one", "mean").save(tmp_path / "three")
    np.testing.assert_array_equal(
        MirrorEncoder.load(tmp_path / "two").encode(TEXTS), MirrorEncoder.load(tmp_path / "one").encode(TEXTS)
    )
    assert read(tmp_path / "one" / "modules.json") == read(tmp_path / "two" / "modules.json")
    assert not (tmp_path / "three" / "1_WeightedLayerPooling").exists()


def test_layered_pooling_by_the_names_that_every_sentence_transformers_reads(bert: Path, tmp_path: Path) -> None:
    """Before its version 6 it knew no ``embedding_dimension``, and refused the folder; newer ones take both."""
    MirrorEncoder.load(bert, "first_last").save(tmp_path / "encoder")
    settings = read(tmp_path / "encoder" / "1_WeightedLayerPooling" / "config.json")
    assert settings.keys() == {"word_embedding_dimension", "layer_start", "num_hidden_layers"}


def test_layer_weights_leave_out_the_embeddings() -> None:
    assert layer_weights(Pooling.first_last, 4) == [1, 0, 0, 1]
    assert layer_weights(Pooling.last_two, 4) == [0, 0, 1, 1]


# --- folders of others


@pytest.fixture
def foreign(bert: Path, tmp_path: Path) -> Path:
    """A mean-pooling encoder as sentence-transformers saves it."""
    other = pytest.importorskip("sentence_transformers")
    modules = other.sentence_transformer.modules
    transformer = modules.Transformer(str(bert), max_seq_length=30)
    pooling = modules.Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    other.SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(tmp_path / "foreign"))
    return tmp_path / "foreign"


def test_reads_what_sentence_transformers_saves(foreign: Path) -> None:
    other = pytest.importorskip("sentence_transformers")
    encoder = MirrorEncoder.load(foreign)
    assert (encoder.pooling.name, encoder.max_tokens, normalizes(encoder)) == ("mean", 30, False)
    theirs = other.SentenceTransformer(str(foreign), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS), theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"pooling_mode": "cls"}, Pooling.cls),
        ({"pooling_mode": ["max"]}, Pooling.max),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, Pooling.cls),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, Pooling.mean),
        ({"pooling_mode_max_tokens": True, "include_prompt": True}, Pooling.max),
        ({"pooling_mode": ["cls", "max", "mean"]}, Pooling.concat),
        ({f"pooling_mode_{mode}": True for mode in ("mean_tokens", "max_tokens", "cls_token")}, Pooling.concat),
    ],
)
def test_reads_both_forms_of_the_pooling_file(foreign: Path, settings: dict[str, Any], expected: Pooling) -> None:
    (foreign / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | settings))
    assert MirrorEncoder.load(foreign).pooling.name == expected.value


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling_mode": "weightedmean"},
        {"pooling_mode": ["mean", "cls"]},
        {"pooling_mode_cls_token": True, "pooling_mode_lasttoken": True},
        {"pooling_mode_cls_token": True, "pooling_mode_weightedmean_tokens": True},
    ],
)
def test_refuses_poolings_that_it_does_not_know(foreign: Path, settings: dict[str, Any]) -> None:
    (foreign / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(MirrorError, match="which mirror does not run: use sentence-transformers"):
        MirrorEncoder.load(foreign)


def test_a_dense_layer_is_run_and_saved_again(foreign: Path, tmp_path: Path) -> None:
    """Read, given the same vectors as sentence-transformers gives, and written so that it reads them again."""
    other = pytest.importorskip("sentence_transformers")
    theirs = other.SentenceTransformer(str(foreign), device="cpu")
    dense = other.sentence_transformer.modules.Dense(32, 12, activation_function=torch.nn.Tanh())
    theirs.append(dense)
    theirs.append(other.sentence_transformer.modules.Normalize())
    theirs.save(str(tmp_path / "dense"))
    expected = theirs.encode(TEXTS)
    encoder = MirrorEncoder.load(tmp_path / "dense")
    assert (encoder.dimension, encoder.pooling.name) == (12, "mean+Dense")
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    encoder.save(tmp_path / "again")
    again = other.SentenceTransformer(str(tmp_path / "again"), device="cpu")
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(MirrorEncoder.load(tmp_path / "again").encode(TEXTS), expected, atol=1e-5)


def test_learnt_layer_weights_are_run_and_saved_again(bert: Path, tmp_path: Path) -> None:
    other = pytest.importorskip("sentence_transformers")
    encoder = MirrorEncoder.load(bert)
    mix = LayerMix([0.2, 0.5, 1.3], trainable=True)
    encoder.pooling = TextPooling([mix, TokenPooling("mean")], "mix", 32)
    encoder.save(tmp_path / "mix")
    expected = encoder.encode(TEXTS)
    np.testing.assert_allclose(
        other.SentenceTransformer(str(tmp_path / "mix"), device="cpu").encode(TEXTS), expected, atol=1e-5
    )
    again = MirrorEncoder.load(tmp_path / "mix")
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-6)
    assert [weight.requires_grad for weight in again.pooling.parameters()] == [True]


def test_refuses_a_module_that_it_does_not_run(foreign: Path) -> None:
    modules = read(foreign / "modules.json")
    modules.append({"idx": 2, "name": "2", "path": "2_LSTM", "type": "sentence_transformers.models.LSTM"})
    (foreign / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(MirrorError, match="has a LSTM module, which mirror does not run"):
        MirrorEncoder.load(foreign)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("no_such_package.Pool", "cannot be imported"), ("json.JSONDecoder", "has a JSONDecoder module")],
)
def test_refuses_a_module_of_another_package_that_is_no_stage(foreign: Path, kind: str, reason: str) -> None:
    modules = read(foreign / "modules.json")
    modules.append({"idx": 2, "name": "2", "path": "2_Own", "type": kind})
    (foreign / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(MirrorError, match=reason):
        MirrorEncoder.load(foreign)


@pytest.mark.parametrize("inside", ["", "1_Pooling"])
def test_code_in_a_model_folder_is_never_imported(inside: str, foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the user stands in the folder, or beside it, and Python would find it."""
    (foreign / inside / "evil_stage.py").write_text(f"open({str(foreign / 'ran')!r}, 'w')\n")
    modules = read(foreign / "modules.json")
    modules.append({"idx": 2, "name": "2", "path": "2_Own", "type": "evil_stage.Pool"})
    (foreign / "modules.json").write_text(json.dumps(modules))
    monkeypatch.syspath_prepend(str(foreign / inside))
    with pytest.raises(MirrorError, match="code that lies in the folder itself"):
        MirrorEncoder.load(foreign)
    assert not (foreign / "ran").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", 7),
        ("modules.json", [7]),
        ("modules.json", {"type": "Transformer"}),
        ("modules.json", [{"path": "1_Pooling"}]),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling", "path": 3}]),
        ("modules.json", [{"type": "", "path": ""}]),
        ("1_Pooling/config.json", []),
        ("1_Pooling/config.json", {"pooling_mode": 7}),
        ("sentence_bert_config.json", {"max_seq_length": "many"}),
        ("sentence_bert_config.json", {"max_seq_length": -3}),
        ("sentence_bert_config.json", {"max_seq_length": [30]}),
        ("sentence_bert_config.json", []),
        ("config_mirror.json", {"pooling": "funny", "pad_to": 10}),
        ("config_mirror.json", {"pad_to": 10}),
        ("config_mirror.json", {"pooling": "mean_padded", "pad_to": "10"}),
    ],
)
def test_a_file_of_another_shape(file: str, content: Any, foreign: Path) -> None:
    (foreign / file).write_text(json.dumps(content))
    with pytest.raises(MirrorError, match=re.escape(str(foreign))):
        MirrorEncoder.load(foreign)


def test_weights_of_a_dense_layer_that_do_not_fit(foreign: Path) -> None:
    settings = {"in_features": 32, "out_features": 4, "activation_function": "torch.nn.modules.linear.Identity"}
    (foreign / "2_Dense").mkdir()
    (foreign / "2_Dense" / "config.json").write_text(json.dumps(settings))
    modules = [*read(foreign / "modules.json")]
    modules.append({"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (foreign / "modules.json").write_text(json.dumps(modules))
    for weights in (b"", b"nonsense of some length"):
        (foreign / "2_Dense" / "model.safetensors").write_bytes(weights)
        with pytest.raises(MirrorError, match="does not say how it pools"):
            MirrorEncoder.load(foreign)
    save_file({"linear.weight": torch.ones(5, 32)}, foreign / "2_Dense" / "model.safetensors")
    with pytest.raises(MirrorError, match="does not say how it pools"):
        MirrorEncoder.load(foreign)


def test_damaged_pooling_file(foreign: Path) -> None:
    (foreign / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(MirrorError, match=r"is damaged \(no JSON object\): save the encoder again"):
        MirrorEncoder.load(foreign)
    (foreign / "1_Pooling" / "config.json").unlink()
    with pytest.raises(MirrorError, match=r"cannot be read \(No such file or directory\): save the encoder again"):
        MirrorEncoder.load(foreign)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda modules: modules.append(modules[1]),
            "the stages TokenPooling, TokenPooling of its modules.json make no",
        ),
        (lambda modules: modules[1].update(type="sentence_transformers.models.Normalize"), "the stages Normalize of"),
    ],
)
def test_stages_that_make_no_vector_of_a_text(foreign: Path, change: Any, reason: str) -> None:
    modules = read(foreign / "modules.json")[:2]
    change(modules)
    (foreign / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(MirrorError, match=reason):
        MirrorEncoder.load(foreign)


def test_a_switch_that_is_none(foreign: Path) -> None:
    settings = read(foreign / "1_Pooling" / "config.json") | {"pooling_mode_cls_token": "yes"}
    (foreign / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(MirrorError, match="pooling_mode_cls_token should be true or false"):
        MirrorEncoder.load(foreign)


@pytest.mark.parametrize("width", [77, "x", None])
def test_pooling_of_vectors_of_another_length(foreign: Path, width: Any) -> None:
    settings = read(foreign / "1_Pooling" / "config.json") | {"word_embedding_dimension": width}
    (foreign / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(MirrorError, match=r"word_embedding_dimension is .*, and the vectors that come there have 32"):
        MirrorEncoder.load(foreign)


def test_plain_model_has_no_pooling(bert: Path) -> None:
    assert read_folder(bert, MirrorEncoder.load(bert).backbone.config) is None
    assert MirrorEncoder.load(bert).saved_pooling is None


def test_real_encoder_of_others(ruler: Path) -> None:
    other = pytest.importorskip("sentence_transformers")
    encoder = MirrorEncoder.load(ruler)
    assert (encoder.pooling.name, normalizes(encoder), encoder.max_tokens) == ("mean", True, 256)
    theirs = other.SentenceTransformer(str(ruler), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS), theirs, atol=1e-5)


# --- whole or absent


def test_nothing_beside_the_folder_is_left(bert: Path, tmp_path: Path) -> None:
    MirrorEncoder.load(bert).save(tmp_path / "deep" / "saved", {"README.md": "# A card\n"})
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["saved"]
    assert (tmp_path / "deep" / "saved" / "README.md").read_text() == "# A card\n"


def test_who_may_read_the_folder_may_read_its_files(bert: Path, tmp_path: Path) -> None:
    MirrorEncoder.load(bert).save(tmp_path / "saved")
    shared = (tmp_path / "saved").stat().st_mode & 0o066
    assert {path.stat().st_mode & 0o066 for path in (tmp_path / "saved").iterdir() if path.is_file()} == {shared}


def test_an_existing_folder_is_kept(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine.txt").write_text("precious")
    with pytest.raises(MirrorError, match="exists already: nothing is overwritten"):
        MirrorEncoder.load(bert).save(tmp_path / "saved")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("size", [500, 20_000])
def test_where_the_system_refuses_to_write_nothing_is_left(bert: Path, tmp_path: Path, size: int) -> None:
    """500 bytes stop Python's files, 20,000 the weights, which safetensors writes past Python."""
    encoder = MirrorEncoder.load(bert)
    with files_no_larger_than(size), pytest.raises(MirrorError, match="cannot be written"):
        encoder.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []
    encoder.save(tmp_path / "saved")  # and all is well once there is room


def test_full_disk(tmp_path: Path) -> None:
    def write(partial: Path) -> None:
        (partial / "half").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MirrorError, match=r"No space left on device.*free some space"):
        write_whole(tmp_path / "saved", write)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MirrorError, match="cannot be written"):
        MirrorEncoder.load(bert).save(tmp_path / "file" / "saved")


@pytest.mark.parametrize("reason", [KeyboardInterrupt, ZeroDivisionError])
def test_other_errors_pass_and_leave_nothing(tmp_path: Path, reason: type[BaseException]) -> None:
    def write(partial: Path) -> None:
        (partial / "half").write_text("half")
        raise reason

    with pytest.raises(reason):
        write_whole(tmp_path / "saved", write)
    assert list(tmp_path.iterdir()) == []


def test_what_lies_beside_stays(tmp_path: Path) -> None:
    """What an earlier crash left is no obstacle, and what looks like it may be the user's."""
    (tmp_path / "saved.partial").mkdir()
    (tmp_path / "saved.partial" / "old").write_text("old")

    def write(partial: Path) -> None:
        (partial / "new").write_text("new")

    write_whole(tmp_path / "saved", write)
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["new"]
    assert (tmp_path / "saved.partial" / "old").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved", "saved.partial"]


def test_mean_over_padding_is_refused_elsewhere(bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """sentence-transformers would average the real tokens alone, without a word."""
    other = pytest.importorskip("sentence_transformers")
    encoder = MirrorEncoder.load(bert, "mean_padded")
    encoder.layout.fix_width(60)
    encoder.save(tmp_path / "saved")
    assert "loads with mirror alone" in caplog.text
    with pytest.raises(ValueError, match="not part of Sentence Transformers"):
        other.SentenceTransformer(str(tmp_path / "saved"), device="cpu")
