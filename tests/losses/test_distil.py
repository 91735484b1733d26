"""Distillation against naive loops, sentence-transformers, and across processes; what a student becomes."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mirror import MirrorEncoder, MirrorError
from mirror.config import Match
from mirror.config.compose import compose
from mirror.losses.distil import Distil
from mirror.losses.embedder import Embedder
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.conftest import SENTENCES
from tests.helpers import SMALL
from tests.losses.inputs import Known, Scorer, batches, cosine, loaded
from tests.losses.processes import assert_two_are_one

VECTORS = [Match.cosine, Match.mse, Match.similarity]
CASES = {
    **{match.value: (match, 1, False) for match in VECTORS},
    **{f"{match.value} of two": (match, 2, False) for match in VECTORS},
    "translations": (Match.cosine, 1, True),
    "scores": (Match.scores, 1, False),
    "scores of two": (Match.scores, 2, False),
}
OTHERS = 2
TEXTS = torch.tensor([[0, 1, 2, 3, 4, 4], [0, 6, 2, 8, 9, 4]])


def value(match: Match, teachers: int, translations: bool, vectors: Tensor, texts: Tensor) -> Tensor:
    """Of a student with vectors of the teacher's size, 5."""
    loss = Distil.__new__(Distil)
    torch.nn.Module.__init__(loss)
    loss.match, loss.map, loss.translations, loss.others, loss.layers = match, None, translations, OTHERS, []
    scored = match is Match.scores
    loss.teachers = [] if scored else [Known(seed) for seed in range(teachers)]  # type: ignore[misc]
    loss.scorers = [Scorer(seed) for seed in range(teachers)] if scored else []  # type: ignore[misc]
    batch: Any = SimpleNamespace(text_ids=texts, texts=[[str(int(n)) for n in side] for side in texts])
    embed: Any = lambda _: vectors[..., :5]  # noqa: E731
    found: Tensor = loss(embed, batch)["loss"]
    return found


def naive(match: Match, teachers: int, translations: bool, vectors: Tensor, texts: Tensor) -> Tensor:
    """The definition, one number at a time."""
    shown = texts[:1].expand(2, -1) if translations else texts
    student = vectors[..., :5].flatten(0, 1)
    taught = [Known(seed).table[shown].flatten(0, 1) for seed in range(teachers)]
    rows, n = range(len(student)), texts.shape[1]

    def mean(numbers: list[Tensor]) -> Tensor:
        return torch.stack(numbers).mean(dim=0)

    if match is Match.scores:
        pairs = [(i, (i + k) % n) for i in range(n) for k in range(OTHERS + 1)]
        tables = [Scorer(seed).table for seed in range(teachers)]
        wanted = [mean([table[texts[0, i], texts[1, j]] for table in tables]) for i, j in pairs]
        found = [cosine(student[i], student[n + j]) for i, j in pairs]
        return mean([(one - other) ** 2 for one, other in zip(found, wanted, strict=True)])
    if match is Match.similarity:
        theirs = {(i, j): mean([cosine(table[i], table[j]) for table in taught]) for i in rows for j in rows}
        return mean([(cosine(student[i], student[j]) - wanted) ** 2 for (i, j), wanted in theirs.items()])
    target = [taught[0][i] if teachers == 1 else mean([table[i] / table[i].norm() for table in taught]) for i in rows]
    if match is Match.cosine:
        return mean([1 - cosine(student[i], target[i]) for i in rows])
    return mean([((student[i] - target[i]) ** 2).sum() / 5 for i in rows])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients_are_the_definition_s(case: tuple[Match, int, bool]) -> None:
    ours = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    found, expected = value(*case, ours, TEXTS), naive(*case, theirs, TEXTS)
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("match", [Match.cosine, Match.mse])
def test_values_are_sentence_transformers_s(match: Match) -> None:
    losses: Any = pytest.importorskip("sentence_transformers.losses")
    vectors = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    texts = torch.arange(6).expand(2, -1)
    peer = losses.EmbedDistillLoss(torch.nn.Identity(), distance_metric=match.value)
    expected = peer.compute_loss_from_embeddings(list(vectors), list(Known(0).table[texts]))
    torch.testing.assert_close(value(match, 1, False, vectors, texts), expected)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_two_processes_give_the_loss_and_gradients_of_one(case: tuple[Match, int, bool], tmp_path: Path) -> None:
    assert_two_are_one(partial(value, *case), tmp_path)


def test_layers_are_those_of_the_definition(tiny_bert: Path) -> None:
    """PKD's term, by hand from what transformers returns."""
    student = loaded(tiny_bert)
    teacher = MirrorEncoder.load(tiny_bert)
    loss = Distil(embedder := Embedder(student), str(tiny_bert), layers=[1, 0], layers_weight=0.5, keep=None)
    pairs = batches(student)
    pairs.apart = False
    batch = pairs[pairs.key(0)]
    found = loss(embedder, batch)
    terms = []
    for texts, views in zip(batch.texts, batch.strings, strict=True):
        for text, view in zip(texts, views, strict=True):
            states = []
            for encoder, shown in ((student, view), (teacher, text)):
                tokens = encoder.tokenizer(shown, truncation=True, max_length=50, return_tensors="pt")
                with torch.no_grad():
                    states.append(encoder.backbone(**tokens, output_hidden_states=True).hidden_states[1:])
            for mine, theirs in ((0, 1), (1, 0)):  # [CLS], since the student is pooled by it
                unit = [
                    F.normalize(side[layer][0, 0], dim=0) for side, layer in zip(states, (mine, theirs), strict=True)
                ]
                terms.append((unit[0] - unit[1]).square().mean())
    torch.testing.assert_close(found["layers"], torch.stack(terms).mean(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["loss"].detach(), found["vectors"] + 0.5 * found["layers"])
    assert "of layers 1, 0 too" in loss.describe()


def run(model: Path, folder: Path, *typed: str, texts: Any = SENTENCES[:60]) -> MirrorEncoder:
    folder.mkdir()
    own = [f"model.path='{model}'", f"loss.keep='{folder}/kept'"]
    config: Any = compose("train", ["loss=distil", "eval=none", *own, *SMALL, *typed])
    return train(config, folder, texts)


@pytest.mark.parametrize("match", VECTORS)
def test_student_comes_nearer_to_its_teacher(match: Match, tiny_bert: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    MirrorEncoder.load(tiny_bert, "mean").save(teacher)
    run(tiny_bert, tmp_path / "run", f"teacher='{teacher}'", f"loss.match={match.value}", "trainer.max_epochs=6")
    losses = [loss for _, loss in by_step(tmp_path / "run")]
    assert losses[-1] < 0.8 * losses[0]
    card = (tmp_path / "run" / "encoder" / "README.md").read_text()
    assert f"of {teacher} |" in card


def test_fewer_layers_follow_those_of_the_teacher(tiny_bert: Path, tmp_path: Path) -> None:
    given = [f"teacher='{tiny_bert}'", "model.keep_layers=[1]", "loss.layers=[1]", "batch.micro=7"]
    run(tiny_bert, tmp_path / "run", *given, "trainer.max_epochs=8")
    for name in ("loss", "layers", "vectors"):
        values = [value for _, value in by_step(tmp_path / "run", name)]
        assert values[-1] < 0.8 * values[0]
    from transformers import AutoModel

    assert AutoModel.from_pretrained(tmp_path / "run" / "encoder").config.num_hidden_layers == 1
    assert "| layers | 1, counted from 0 |" in (tmp_path / "run" / "encoder" / "README.md").read_text()


def test_translations_come_to_the_first_text_s_vector(tiny_bert: Path, tmp_path: Path) -> None:
    pairs = [(text, text.upper().replace(" ", " x ")) for text in SENTENCES[:40]]
    teacher = MirrorEncoder.load(tiny_bert)
    given = [f"teacher='{tiny_bert}'", "loss.translations=true", "aug=none", "trainer.max_epochs=12"]
    student = run(tiny_bert, tmp_path / "run", *given, texts=pairs)
    wanted = torch.from_numpy(teacher.encode([first for first, _ in pairs]))
    before, after = (
        F.cosine_similarity(torch.from_numpy(encoder.encode([second for _, second in pairs])), wanted).mean()
        for encoder in (teacher, student)
    )
    assert 1 - after < 0.5 * (1 - before)


def test_vectors_of_other_sizes_go_through_a_map(tiny_bert: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher"
    MirrorEncoder.load(tiny_bert, "concat").save(teacher)  # 96 dimensions
    embedder = Embedder(MirrorEncoder.load(tiny_bert))
    assert Distil(embedder, str(teacher), Match.similarity).map is None
    loss = Distil(embedder, str(teacher), Match.mse)
    assert loss.map is not None
    assert loss.map.weight.shape == (96, 32)
    assert set(loss.state_dict()) == {"map.weight", "map.bias"}
    assert "through a linear map" in loss.describe()
    given = [f"teacher='{teacher}'", "loss.match=mse"]
    assert run(tiny_bert, tmp_path / "run", *given).dimension == 32


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ([], r"^teacher is not set: add teacher=…"),
        (["teacher=/none"], r"^teacher=/none does not exist"),
        (
            ["teacher=TINY", "loss.layers=[0]"],
            r"loss\.layers=\[0\] names 1 layers of the teacher, and the student has 2",
        ),
        (["teacher=TINY", "loss.layers=[0,2]"], r"loss\.layers=\[0, 2\] names layer 2, and .* has 2, from 0 to 1"),
        (["teacher=[TINY,WIDE]", "loss.layers=[0,1]"], r"loss\.layers follows the layers of one teacher"),
        (
            ["teacher=[TINY,WIDE]"],
            r"vectors of different sizes have no mean \(.* 32, .* 96\): set loss\.match=similarity",
        ),
        (["teacher=TINY", "loss.match=scores"], r"is no cross-encoder with one score for a pair of texts"),
        (["teacher=CROSS"], r"scores pairs of texts: set loss\.match=scores"),
        (["teacher=CROSS", "loss.match=scores", "loss.translations=true"], r"loss\.match=scores follows scores alone"),
        (
            ["teacher=TINY", "model.keep_layers=[0,2]"],
            r"model\.keep_layers=\[0, 2\] names layer 2, and .* has 2 layers",
        ),
        (["teacher=TINY", "model.keep_layers=[1,0]"], r"model\.keep_layers=\[1, 0\]: give the layers that stay"),
        (["teacher=[TINY,3]"], r"^teacher names 3, which is no folder: give that of an encoder, or several"),
        (["teacher=3"], r"^teacher names 3, which is no folder"),
        (["teacher={a:1}"], r"^teacher names \{.*, which is no folder"),
        (
            ["teacher=TINY", "loss.translations=true"],
            r"^loss\.translations=true needs pairs of texts",
        ),
        (
            ["teacher=TINY", "loss.keep=/proc/x"],
            r"^loss\.keep=/proc/x cannot be used \(No such file",
        ),
    ],
)
def test_what_is_refused(typed: list[str], reason: str, tiny_bert: Path, cross_encoder: Path, tmp_path: Path) -> None:
    MirrorEncoder.load(tiny_bert, "concat").save(tmp_path / "wide")
    places = {"TINY": tiny_bert, "CROSS": cross_encoder, "WIDE": tmp_path / "wide"}
    for name, place in places.items():
        typed = [word.replace(name, f"'{place}'") for word in typed]
    with pytest.raises(MirrorError, match=reason):
        run(tiny_bert, tmp_path / "run", *typed)
    assert not (tmp_path / "run" / "encoder").exists()


def test_a_teacher_that_nothing_reads() -> None:
    with pytest.raises(MirrorError, match=r"^teacher=one is not read by this loss: add loss=distil or loss=ranking"):
        compose("train", ["teacher=one"])
