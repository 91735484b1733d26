"""RankCSE against naive loops, sentence-transformers and scipy, and across processes; its runs, and what is refused."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mirror import MirrorEncoder, MirrorError
from mirror.config import RankLoss
from mirror.config.compose import compose
from mirror.losses.ranking import Ranking, jensen_shannon, list_mle, list_net
from mirror.runs.record import by_step
from mirror.training.run import train
from tests.conftest import SENTENCES
from tests.helpers import SMALL
from tests.losses.inputs import Known, cosine
from tests.losses.processes import assert_two_are_one

METHODS = list(RankLoss)


def ranking(method: RankLoss, teachers: int = 2) -> Ranking:
    loss = Ranking(0.3, distillation=0, consistency=0.7, method=method, teacher_temperature=0.2)
    loss.distillation, loss.teachers = 1.5, [Known(seed) for seed in range(teachers)]  # type: ignore[misc]
    loss.shares = [0.33, 0.67]
    return loss


def value(method: RankLoss, vectors: Tensor, texts: Tensor) -> dict[str, Tensor]:
    batch: Any = SimpleNamespace(text_ids=texts, texts=[[str(int(n)) for n in side] for side in texts])
    embed: Any = lambda _: vectors  # noqa: E731
    return ranking(method)(embed, batch)  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", METHODS)
def test_values_and_gradients_are_the_definition_s(method: RankLoss) -> None:
    ours = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    found = value(method, ours, torch.arange(6).expand(2, -1))
    tables, contrast, consistency, distillation = [Known(0).table, Known(1).table], [], [], []
    for i in range(6):
        p = [cosine(theirs[0, i], theirs[1, j]) / 0.3 for j in range(6)]
        q = [cosine(theirs[1, i], theirs[0, j]) / 0.3 for j in range(6)]
        p_total, q_total = (torch.stack(list_).exp().sum() for list_ in (p, q))
        contrast.append(-(p[i].exp() / p_total).log())
        for j in range(6):
            one, other = p[j].exp() / p_total, q[j].exp() / q_total
            mixture = (one + other) / 2
            consistency.append((one * (one / mixture).log() + other * (other / mixture).log()) / 2)
        wanted = [
            0.33 * cosine(tables[0][i], tables[0][j]) + 0.67 * cosine(tables[1][i], tables[1][j]) for j in range(6)
        ]
        if method is RankLoss.listmle:
            order = sorted(range(6), key=lambda j: -float(wanted[j]))
            for k, j in enumerate(order):
                distillation.append(-(p[j].exp() / sum(p[n].exp() for n in order[k:])).log())
        else:
            others = [j for j in range(6) if j != i]
            total = sum((wanted[j] / 0.2).exp() for j in others)
            rest = sum(p[j].exp() for j in others)
            distillation += [-((wanted[j] / 0.2).exp() / total) * (p[j].exp() / rest).log() for j in others]
    expected = {
        name: torch.stack(terms).sum() / 6
        for name, terms in (("contrast", contrast), ("consistency", consistency), ("distillation", distillation))
    }
    for name, term in expected.items():
        torch.testing.assert_close(found[name], term.detach())
    loss = expected["contrast"] + 0.7 * expected["consistency"] + 1.5 * expected["distillation"]
    torch.testing.assert_close(found["loss"], loss)
    found["loss"].backward()
    loss.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def with_listmle(vectors: Tensor, texts: Tensor) -> Tensor:
    return value(RankLoss.listmle, vectors, texts)["loss"]


def with_listnet(vectors: Tensor, texts: Tensor) -> Tensor:
    return value(RankLoss.listnet, vectors, texts)["loss"]


@pytest.mark.parametrize("loss_of", [with_listmle, with_listnet])
def test_two_processes_give_the_loss_and_gradients_of_one(loss_of: Any, tmp_path: Path) -> None:
    assert_two_are_one(loss_of, tmp_path)


class Scores(nn.Module):
    """Scores where sentence-transformers expects a cross encoder: of pairs of places."""

    num_labels, device = 1, torch.device("cpu")

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.scores = scores

    def preprocess(self, pairs: list[tuple[str, str]], **_: Any) -> dict[str, Tensor]:
        return {"places": torch.tensor([[int(a), int(b)] for a, b in pairs])}

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"scores": self.scores[features["places"][:, 0], features["places"][:, 1]]}


def test_lists_are_sentence_transformers_s_and_the_divergence_scipy_s() -> None:
    losses: Any = pytest.importorskip("sentence_transformers.cross_encoder.losses")
    distance: Any = pytest.importorskip("scipy.spatial.distance")
    draw = torch.Generator().manual_seed(0)
    ours, wanted = torch.randn(4, 7, generator=draw), torch.randn(4, 7, generator=draw)
    queries, documents = [str(i) for i in range(4)], [[str(j) for j in range(7)] for _ in range(4)]
    mle = losses.ListMLELoss(Scores(ours), respect_input_order=False)([queries, documents], list(wanted))
    torch.testing.assert_close(list_mle(ours, wanted) / 4, mle)
    # A twin that stands in front of the list is left out.
    front = torch.zeros(4, 1)
    found = list_net(torch.cat([front, ours], 1), torch.cat([front, wanted], 1), torch.zeros(4, dtype=torch.long)) / 4
    torch.testing.assert_close(found, losses.ListNetLoss(Scores(ours))([queries, documents], list(wanted)))
    both = distance.jensenshannon(ours.softmax(1).numpy(), wanted.softmax(1).numpy(), axis=1) ** 2
    assert math.isclose(float(jensen_shannon(ours, wanted)), both.sum(), rel_tol=1e-5)


def test_what_a_teacher_ranks_first_comes_nearer() -> None:
    vectors = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(3)).requires_grad_()
    before = value(RankLoss.listnet, vectors, torch.arange(6).expand(2, -1))
    before["loss"].backward()
    assert vectors.grad is not None
    moved = (vectors - 0.5 * vectors.grad).detach()
    after = value(RankLoss.listnet, moved, torch.arange(6).expand(2, -1))
    assert after["distillation"] < before["distillation"]


def run(model: Path, folder: Path, *typed: str) -> None:
    folder.mkdir()
    config: Any = compose(
        "train", ["loss=ranking", "eval=none", f"model.path='{model}'", f"loss.keep='{folder}/kept'", *SMALL, *typed]
    )
    train(config, folder, SENTENCES[:60])


def test_run_with_two_teachers(tiny_bert: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    MirrorEncoder.load(tiny_bert, "mean").save(first)
    given = [f"teacher='{first}'", f"loss.second_teacher='{tiny_bert}'"]
    run(tiny_bert, tmp_path / "whole", *given)
    for name in ("loss", "contrast", "consistency", "distillation"):
        assert len(by_step(tmp_path / "whole", name)) == 6
    card = (tmp_path / "whole" / "encoder" / "README.md").read_text()
    assert f"listmle 1 to {first} (0.33) and {tiny_bert} (0.67) |" in card
    # Gradient caching: the same curve.
    run(tiny_bert, tmp_path / "parts", *given, "batch.micro=5", "aug.dropout=0")
    run(tiny_bert, tmp_path / "at once", *given, "aug.dropout=0")
    parts, at_once = (dict(by_step(tmp_path / name)) for name in ("parts", "at once"))
    assert parts == pytest.approx(at_once, rel=1e-3)


def test_a_teacher_is_in_no_checkpoint(tiny_bert: Path) -> None:
    loss = Ranking(teacher=str(tiny_bert))
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []
    assert not loss.train().teachers[0].encoder.training


def test_equal_strings_are_encoded_once_and_as_the_teacher_encodes_them(tiny_bert: Path) -> None:
    (teacher,) = Ranking(teacher=str(tiny_bert), keep=None).teachers
    texts = [SENTENCES[:5], [*SENTENCES[:4], SENTENCES[9]]]
    calls = list[int]()
    teacher.encoder.backbone.register_forward_hook(lambda module, arguments, output: calls.append(len(output[0])))
    found = teacher.vectors(texts, torch.device("cpu"))
    assert calls == [6]
    for view, vectors in zip(texts, found, strict=True):
        expected = torch.from_numpy(MirrorEncoder.load(tiny_bert).encode(view))
        torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([], r"^teacher is not set: add teacher=…"),
        (["teacher=/no/such/folder"], r"^teacher=/no/such/folder does not exist"),
        (["loss.teacher=TINY", "loss.second_teacher=/none"], r"loss\.second_teacher=/none does not exist"),
        (["loss.share=1"], r"loss\.share=1.* above 0 and below 1"),
        (["loss.method=best"], r"loss\.method=best does not fit"),
    ],
)
def test_what_is_refused_before_training(typed: list[str], message: str, tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=message):
        run(tiny_bert, tmp_path / "run", *[word.replace("TINY", f"'{tiny_bert}'") for word in typed])
    assert not (tmp_path / "run" / "encoder").exists()


def test_no_teacher_is_needed_without_distillation(tiny_bert: Path, tmp_path: Path) -> None:
    run(tiny_bert, tmp_path / "run", "loss.distillation=0")
    assert by_step(tmp_path / "run", "distillation") == []
