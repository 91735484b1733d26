"""Teachers: what they give, what is kept of it, and a scorer of pairs beside sentence-transformers."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mirror import MirrorEncoder, MirrorError
from mirror.config.compose import compose
from mirror.losses.teacher import PairTeacher, Teacher
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.conftest import SENTENCES
from tests.helpers import SMALL

CPU = torch.device("cpu")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts an encoder is asked for, each time."""
    found: list[int] = []
    encode_by = MirrorEncoder.encode_by

    def counted(self: MirrorEncoder, texts: Any, *arguments: Any, **named: Any) -> Any:
        found.append(len(texts))
        return encode_by(self, texts, *arguments, **named)

    monkeypatch.setattr(MirrorEncoder, "encode_by", counted)
    return found


def test_kept_vectors_are_the_teacher_s_wherever_it_lies(tiny_bert: Path, calls: list[int], tmp_path: Path) -> None:
    expected = torch.from_numpy(MirrorEncoder.load(tiny_bert).encode(SENTENCES[:6])).view(2, 3, 32)
    texts = [SENTENCES[:3], SENTENCES[3:6]]
    calls.clear()
    first = Teacher(str(tiny_bert), keep=str(tmp_path / "kept")).vectors(texts, CPU)
    torch.testing.assert_close(first, expected)
    moved = tmp_path / "elsewhere"
    shutil.copytree(tiny_bert, moved)
    assert torch.equal(Teacher(str(moved), keep=str(tmp_path / "kept")).vectors(texts, CPU), first)
    assert calls == [6]
    MirrorEncoder.load(tiny_bert, "mean").save(tmp_path / "other")
    assert not torch.equal(Teacher(str(tmp_path / "other"), keep=str(tmp_path / "kept")).vectors(texts, CPU), first)
    assert len([*(tmp_path / "kept").iterdir()]) == 2


def test_layers_are_those_of_transformers(tiny_bert: Path, tmp_path: Path) -> None:
    for token in ("cls", "mean"):
        teacher = Teacher(str(tiny_bert), keep=str(tmp_path), layers=[0, 1], token=token)
        for _ in range(2):  # made, and kept
            _, *layers = teacher.with_layers([SENTENCES[:1]], CPU)
            tokens = teacher.encoder.tokenizer(SENTENCES[0], return_tensors="pt")
            states = teacher.encoder.backbone(**tokens, output_hidden_states=True).hidden_states[1:]
            for found, state in zip(layers, states, strict=True):
                wanted = state[0, 0] if token == "cls" else state[0].mean(dim=0)
                torch.testing.assert_close(found[0, 0], wanted, rtol=1e-4, atol=1e-5)


def distilled(model: Path, folder: Path, kept: Path, *typed: str) -> list[Any]:
    folder.mkdir()
    own = ["loss=distil", "eval=none", f"model.path='{model}'", f"teacher='{model}'", f"loss.keep='{kept}'"]
    config: Any = compose("train", [*own, *SMALL, *typed])
    train(config, folder, SENTENCES[:44])
    return by_step(folder)


def test_a_second_epoch_and_a_second_run_ask_nothing(tiny_bert: Path, calls: list[int], tmp_path: Path) -> None:
    """Masks are drawn anew, and the teacher has the texts without them."""
    losses = distilled(tiny_bert, tmp_path / "one", tmp_path / "kept")  # 44 texts, two epochs
    assert sum(calls) == 44
    calls.clear()
    assert distilled(tiny_bert, tmp_path / "two", tmp_path / "kept") == losses
    assert calls == []
    without = distilled(tiny_bert, tmp_path / "three", tmp_path / "kept", "loss.keep=null")
    assert [loss for _, loss in without] == pytest.approx([loss for _, loss in losses], rel=1e-4)
    assert sum(calls) == 88


def test_scores_are_sentence_transformers_s(cross_encoder: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    pairs = [(SENTENCES[i], SENTENCES[2 * i]) for i in range(6)]
    theirs = CrossEncoder(str(cross_encoder), device="cpu").predict(pairs)
    teacher = PairTeacher(str(cross_encoder), keep=str(tmp_path))
    for _ in range(2):
        found = teacher.scores([pairs[:2], pairs[2:4], pairs[4:]], CPU)
        torch.testing.assert_close(found, torch.from_numpy(theirs).view(3, 2))
        teacher = PairTeacher(str(cross_encoder), keep=str(tmp_path))
        teacher.model.predict = None  # what is kept is not asked for
    assert 0 < found.min() < found.max() < 1


def test_student_s_cosines_come_to_the_scores(tiny_bert: Path, cross_encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    own = [f"model.path='{tiny_bert}'", f"teacher='{cross_encoder}'", f"loss.keep='{tmp_path}/kept'"]
    typed = ["loss=distil", "loss.match=scores", "eval=none", "aug=none", *SMALL, "trainer.max_epochs=8"]
    config: Any = compose("train", [*own, *typed])
    train(config, tmp_path / "run", [(SENTENCES[i], SENTENCES[i + 5]) for i in range(44)])
    losses = [loss for _, loss in by_step(tmp_path / "run")]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    card = (tmp_path / "run" / "encoder" / "README.md").read_text()
    assert f"distillation of the scores of pairs of {cross_encoder} |" in card


def test_a_missing_library_is_named_with_its_extra(cross_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MirrorError, match=r"needs sentence-transformers .*: pip install 'mirror-encoders\[distil\]'"):
        PairTeacher(str(cross_encoder))
