"""From lists of token ids to tensors with as little padding as possible.

A batch of texts becomes a few ``TokenBlock``s. A packed block lays several texts into each row of fixed width;
a padded block gives each text a row of its own. Everything after the backbone treats the two alike, because a
block says for each token which text it belongs to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROW = 64
"""Tokens in a packed row. The mean training text has 14 tokens: rows of 64 hold four with little left over, and
attention within a row stays cheap."""
BUCKET = 50
"""Texts in a padded bucket: short enough that sorted neighbours have nearly the same length."""

Tokens = dict[str, list[list[int]]]
"""What a tokenizer returns for a list of texts: ``input_ids`` and, for some models, ``token_type_ids``."""


@dataclass
class TokenBlock:
    """Rows of tokens for one forward pass of the backbone; R rows of W tokens that belong to B texts."""

    inputs: dict[str, Tensor]
    """Each (R, W): ``input_ids`` and, for some models, ``token_type_ids``."""
    text_index: Tensor
    """(R, W): which of this block's texts a token belongs to, from 0 to B - 1; -1 is padding."""
    position: Tensor
    """(R, W): position ids; they start anew with each text."""
    cls_index: Tensor
    """(B,): index of each text's CLS token among the R * W tokens."""
    texts: Tensor
    """(B,): index of each text in the batch."""
    views: Tensor
    """(B,): which view of its text each one is, in training; else 0."""
    packed: bool

    def to(self, device: torch.device) -> "TokenBlock":
        """The same block on a device."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "TokenBlock":
        """The same block where a GPU fetches it without the program waiting; called by torch's data loader."""
        return self.each(Tensor.pin_memory)

    def each(self, move: Callable[[Tensor], Tensor]) -> "TokenBlock":
        """The same block, each tensor moved."""
        return TokenBlock(
            inputs={name: move(tensor) for name, tensor in self.inputs.items()},
            text_index=move(self.text_index),
            position=move(self.position),
            cls_index=move(self.cls_index),
            texts=move(self.texts),
            views=move(self.views),
            packed=self.packed,
        )

    def additive_mask(self, dtype: torch.dtype) -> Tensor:
        """(R, 1, W, W): 0 where two tokens belong to the same text, else the lowest number of ``dtype``.

        Additive and not boolean because eager attention adds whatever it is given; padding sees padding, so
        no row of the softmax is empty.
        """
        same = self.text_index[:, :, None] == self.text_index[:, None, :]  # (R, W, W)
        mask = torch.zeros(same.shape, dtype=dtype, device=same.device)
        return mask.masked_fill_(~same, torch.finfo(dtype).min)[:, None]


def row_width(longest: int) -> int:
    """Width of packed rows for texts of up to ``longest`` tokens."""
    return -(-longest // ROW) * ROW


def select(tokens: Tokens, chosen: Sequence[int]) -> Tokens:
    """The chosen texts' tokens, in that order."""
    return {name: [rows[i] for i in chosen] for name, rows in tokens.items()}


def join(*parts: Tokens) -> Tokens:
    """The texts of several token lists, one after the other."""
    return {name: [row for part in parts for row in part[name]] for name in parts[0]}


def pack(
    tokens: Tokens, *, pad_id: int, cls_id: int | None, width: int = ROW, first_position: int = 0
) -> list[TokenBlock]:
    """Lay the texts into rows of ``width`` tokens, best fit, longest first: one block, hardly any padding.

    The position ids of each text start at ``first_position``.

    Raises:
        ValueError: a text is longer than ``width``.
    """
    ids = tokens["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    rows: list[list[int]] = []
    with_space: list[list[int]] = [[] for _ in range(width + 1)]  # rows by the space left in them
    spaces = 0  # bit s is set where with_space[s] is not empty
    for i in order:
        length = len(ids[i])
        if length > width:
            raise ValueError(f"A text of {length} tokens does not fit a row of {width}.")
        fitting = spaces >> length << length
        if fitting:
            space = (fitting & -fitting).bit_length() - 1  # the smallest that suffices
            row = with_space[space].pop()
            if not with_space[space]:
                spaces ^= 1 << space
        else:
            space, row = width, len(rows)
            rows.append([])
        rows[row].append(i)
        with_space[space - length].append(row)
        spaces |= 1 << space - length
    block = _block(tokens, rows, width, pad_id=pad_id, cls_id=cls_id, packed=True)
    block.position += first_position
    return [block]


def pad(
    tokens: Tokens, *, pad_id: int, cls_id: int | None, width: int | None = None, bucket: int = BUCKET
) -> list[TokenBlock]:
    """Sort the texts by length and pad each bucket to its longest, or all to ``width``."""
    ids = tokens["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    blocks = []
    for start in range(0, len(order), bucket):
        chosen = order[start : start + bucket]
        longest = width or max(len(ids[i]) for i in chosen)
        rows = [[i] for i in chosen]
        blocks.append(_block(tokens, rows, longest, pad_id=pad_id, cls_id=cls_id, packed=False))
    return blocks


def _block(
    tokens: Tokens, rows: list[list[int]], width: int, *, pad_id: int, cls_id: int | None, packed: bool
) -> TokenBlock:
    texts = [i for row in rows for i in row]
    lengths = np.array([len(tokens["input_ids"][i]) for i in texts])
    ends = np.cumsum(lengths)
    starts = ends - lengths  # of each text among all real tokens
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    first = np.searchsorted(row_of, row_of)  # of each text's row
    place = row_of * width + starts - starts[first]  # of each text's first token among the R * W
    within = np.arange(ends[-1]) - np.repeat(starts, lengths)  # of each token in its text
    where = np.repeat(place, lengths) + within

    def laid(values: NDArray[np.int64], filling: int) -> Tensor:
        array = np.full(len(rows) * width, filling, dtype=np.int64)
        array[where] = values
        return torch.from_numpy(array.reshape(len(rows), width))

    flat = {
        name: np.fromiter(chain.from_iterable(tokens[name][i] for i in texts), np.int64, ends[-1]) for name in tokens
    }
    # Most models put CLS first, XLNet last; a tokenizer without one means the first token.
    offset = np.zeros(len(texts), dtype=np.int64)
    at = np.flatnonzero(flat["input_ids"] == cls_id) if cls_id is not None else np.empty(0, dtype=np.int64)
    having, earliest = np.unique(np.searchsorted(ends, at, side="right"), return_index=True)
    offset[having] = within[at[earliest]]
    return TokenBlock(
        inputs={name: laid(values, pad_id if name == "input_ids" else 0) for name, values in flat.items()},
        text_index=laid(np.repeat(np.arange(len(texts)), lengths), -1),
        position=laid(within, 0),
        cls_index=torch.from_numpy(place + offset),
        texts=torch.tensor(texts, dtype=torch.long),
        views=torch.zeros(len(texts), dtype=torch.long),
        packed=packed,
    )
