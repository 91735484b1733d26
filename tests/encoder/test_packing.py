"""Every token is laid down exactly once, with its own position, and sees its own text alone."""

from pathlib import Path
from random import Random

import pytest
import torch

from mirror.config import Pooling
from mirror.encoder.encoder import MirrorEncoder
from mirror.encoder.packing import BUCKET, ROW, TokenBlock, Tokens, join, pack, pad, select
from tests.conftest import SENTENCES

PAD, CLS = 0, 1


def numbered(lengths: list[int]) -> Tokens:
    """Texts whose tokens all differ, so that each can be found again."""
    start, rows = 10, []
    for length in lengths:
        rows.append(list(range(start, start + length)))
        start += length
    return {"input_ids": rows, "token_type_ids": [[i % 2] * length for i, length in enumerate(lengths)]}


def some_lengths(seed: int, count: int = 100) -> list[int]:
    rng = Random(seed)
    return [min(ROW, 3 + int(rng.expovariate(1 / 12))) for _ in range(count)]


def laid(blocks: list[TokenBlock]) -> dict[int, tuple[list[int], list[int], list[int]]]:
    """Ids, token types and positions of each text, as they lie in the blocks."""
    found = {}
    for block in blocks:
        for k, text in enumerate(block.texts.tolist()):
            assert text not in found
            here = block.text_index == k
            assert here.any(dim=1).sum() == 1  # no text runs over a row's end
            inputs = block.inputs
            found[text] = (
                inputs["input_ids"][here].tolist(),
                inputs["token_type_ids"][here].tolist(),
                block.position[here].tolist(),
            )
    return found


LAYOUTS = [
    ("packed", lambda tokens: pack(tokens, pad_id=PAD, cls_id=CLS)),
    ("padded", lambda tokens: pad(tokens, pad_id=PAD, cls_id=CLS)),
    ("fixed", lambda tokens: pad(tokens, pad_id=PAD, cls_id=CLS, width=ROW)),
]
layouts = pytest.mark.parametrize("lay", [lay for _, lay in LAYOUTS], ids=[name for name, _ in LAYOUTS])


@layouts
@pytest.mark.parametrize("lengths", [some_lengths(0), some_lengths(1), [ROW] * 3, [3], [ROW, 1, ROW - 1, 1]])
def test_every_token_stands_exactly_once(lay, lengths: list[int]) -> None:  # type: ignore[no-untyped-def]
    tokens = numbered(lengths)
    blocks = lay(tokens)
    expected = {
        i: (tokens["input_ids"][i], tokens["token_type_ids"][i], list(range(length)))
        for i, length in enumerate(lengths)
    }
    assert laid(blocks) == expected
    for block in blocks:
        filling = block.text_index < 0
        assert (block.inputs["input_ids"][filling] == PAD).all()
        assert (block.inputs["token_type_ids"][filling] == 0).all()
        assert int((~filling).sum()) == sum(lengths[text] for text in block.texts.tolist())


def test_positions_start_where_the_model_wants_them() -> None:
    lengths = some_lengths(0)
    blocks = pack(numbered(lengths), pad_id=PAD, cls_id=CLS, first_position=2)
    assert {i: positions for i, (_, _, positions) in laid(blocks).items()} == {
        i: list(range(2, length + 2)) for i, length in enumerate(lengths)
    }


@pytest.mark.parametrize("width", [ROW, 128])
def test_rows_have_the_width_asked_for(width: int) -> None:
    (block,) = pack(numbered(some_lengths(2)), pad_id=PAD, cls_id=CLS, width=width)
    assert block.packed
    assert block.text_index.shape[1] == width
    assert all(tensor.shape == block.text_index.shape for tensor in (*block.inputs.values(), block.position))


@pytest.mark.parametrize("seed", range(5))
def test_next_to_no_room_is_left(seed: int) -> None:
    lengths = some_lengths(seed, 400)
    (block,) = pack(numbered(lengths), pad_id=PAD, cls_id=CLS)
    fewest = -(-sum(lengths) // ROW)
    assert len(block.text_index) <= fewest + 1


def test_text_goes_where_it_leaves_least_room() -> None:
    """Best fit: 20 belongs beside 40, not beside 30, where both of 17 will want to lie."""
    (block,) = pack(numbered([40, 30, 20, 17, 17]), pad_id=PAD, cls_id=CLS)
    rows = [block.texts[row[row >= 0].unique()].tolist() for row in block.text_index]
    assert sorted(map(sorted, rows)) == [[0, 2], [1, 3, 4]]


def test_real_sentences_fill_their_rows(draft_model: Path, data_dir: Path) -> None:
    file = data_dir / "corpora" / "stsbenchmark_train_10k_sents_random_sampled.txt"
    lines = file.read_text(encoding="utf-8").splitlines()[:400]
    encoder = MirrorEncoder.load(draft_model)
    (block,) = encoder.layout.blocks(encoder.layout.tokenize(lines, 50))
    assert block.packed
    assert float((block.text_index >= 0).float().mean()) > 0.95


def test_text_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="65 tokens does not fit a row of 64"):
        pack(numbered([10, 65]), pad_id=PAD, cls_id=CLS)


def test_buckets_hold_neighbours_in_length() -> None:
    lengths = some_lengths(3, 2 * BUCKET + 10)
    blocks = pad(numbered(lengths), pad_id=PAD, cls_id=CLS)
    assert [len(block.texts) for block in blocks] == [BUCKET, BUCKET, 10]
    assert [lengths[i] for block in blocks for i in block.texts.tolist()] == sorted(lengths)
    for block in blocks:
        assert not block.packed
        assert block.text_index.shape == (len(block.texts), max(lengths[i] for i in block.texts.tolist()))


def test_bucket_size_and_fixed_width() -> None:
    blocks = pad(numbered([3, 4, 5]), pad_id=PAD, cls_id=CLS, bucket=2, width=9)
    assert [tuple(block.text_index.shape) for block in blocks] == [(2, 9), (1, 9)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mask_opens_a_text_to_itself_alone(dtype: torch.dtype) -> None:
    (block,) = pack(numbered([40, 20, 10, 64, 5]), pad_id=PAD, cls_id=CLS)
    mask = block.additive_mask(dtype)
    rows, width = block.text_index.shape
    assert (mask.shape, mask.dtype) == ((rows, 1, width, width), dtype)
    for r in range(rows):
        for i in range(width):
            for j in range(0, width, 3):
                same = int(block.text_index[r, i]) == int(block.text_index[r, j])
                assert float(mask[r, 0, i, j]) == (0.0 if same else torch.finfo(dtype).min)
    assert torch.isfinite(mask.softmax(dim=-1)).all()  # padding, too, sees something


@layouts
@pytest.mark.parametrize(("place", "name"), [(0, "first"), (-1, "last")])
def test_cls_is_found_wherever_the_model_has_it(lay, place: int, name: str) -> None:  # type: ignore[no-untyped-def]
    tokens = numbered(some_lengths(4))
    for ids in tokens["input_ids"]:
        ids[place] = CLS
    for block in lay(tokens):
        assert (block.inputs["input_ids"].flatten()[block.cls_index] == CLS).all()
        assert block.text_index.flatten()[block.cls_index].tolist() == list(range(len(block.texts)))


@layouts
@pytest.mark.parametrize("cls_id", [CLS, None])
def test_first_token_stands_in_for_a_missing_cls(lay, cls_id: int | None) -> None:  # type: ignore[no-untyped-def]
    tokens = numbered(some_lengths(5))
    for block in lay(tokens) if cls_id is not None else pack(tokens, pad_id=PAD, cls_id=None):
        found = block.inputs["input_ids"].flatten()[block.cls_index].tolist()
        assert found == [tokens["input_ids"][i][0] for i in block.texts.tolist()]


def test_select_and_join() -> None:
    tokens = numbered([3, 4, 5])
    assert select(tokens, [2, 0, 2])["input_ids"] == [tokens["input_ids"][i] for i in (2, 0, 2)]
    assert join(select(tokens, [0]), select(tokens, [1, 2])) == tokens


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("pooling", [pooling for pooling in Pooling if pooling is not Pooling.mean_padded])
def test_vectors_come_in_the_order_of_the_texts(packing: bool, pooling: Pooling, tiny_bert: Path) -> None:
    """And are those of each text by itself: nothing of its neighbours in the row shows."""
    encoder = MirrorEncoder.load(tiny_bert, pooling)
    encoder.layout.packing = packing
    texts = [*SENTENCES[::4], "a", "A guitar at home near the river " * 2, "a"]
    blocks = encoder.layout.blocks(encoder.layout.tokenize(texts))
    assert all(block.packed is packing for block in blocks)
    with torch.no_grad():
        together = encoder(blocks)
        for i in (0, 1, 17, len(texts) - 3, len(texts) - 2, len(texts) - 1):
            (block,) = pad(encoder.layout.tokenize([texts[i]]), pad_id=0, cls_id=2)
            torch.testing.assert_close(together[i], encoder([block])[0], rtol=1e-4, atol=1e-5)
