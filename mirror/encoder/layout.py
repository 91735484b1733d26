"""From texts to rows of tokens for one backbone: packed where it keeps the texts of a row apart, else padded by
length."""

import inspect
import logging
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mirror.encoder.backbone import positions
from mirror.encoder.packing import BUCKET, ROW, TokenBlock, Tokens, pack, pad, row_width
from mirror.errors import MirrorError

log = logging.getLogger(__name__)

PROBE_TOLERANCE = 1e-4
"""Largest difference between packed and padded states, relative to their size, that passes for rounding.
Texts that see each other differ by about 1."""
Span = tuple[int, int]
"""Start and end of a unit within a string."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character of UTF-16: no tokenizer reads it, no file holds it."""


def check_no_table(texts: object) -> None:
    """Refuse what gives the names of its columns where texts are wanted.

    Raises:
        MirrorError: ``texts`` is a table.
    """
    if hasattr(texts, "columns"):
        raise MirrorError(
            "texts is a table, whose items are its columns' names: give one column, as in table['sentence']."
        )


def check_characters(text: str, name: str) -> None:
    """Refuse a text that no tokenizer reads; ``name`` says which one it is.

    Raises:
        MirrorError: it holds a lone surrogate.
    """
    if not text.isascii() and SURROGATE.search(text):
        raise MirrorError(f"{name} holds half a character, a lone surrogate: {text!r:.80}")


class Layout:
    """The tokenizer of an encoder, and how its backbone takes tokens.

    Args:
        backbone: a ``transformers`` encoder.
        tokenizer: its tokenizer.
        max_tokens: longer texts are cut.
        name: of the encoder, for messages.
        pad_to: pad every text to so many tokens; None pads to the longest neighbour, or packs.
    """

    def __init__(self, backbone: Any, tokenizer: Any, max_tokens: int, name: str, pad_to: int | None = None) -> None:
        self.backbone, self.tokenizer, self.name = backbone, tokenizer, name
        self.max_tokens, self.pad_to = max_tokens, pad_to
        self.packing = True
        self._frames: dict[str, tuple[dict[str, list[int]], dict[str, list[int]]]] = {}
        self._first_positions: dict[int, int | None] = {}

    def tokenize(self, texts: Sequence[str], max_tokens: int | None = None, template: str | None = None) -> Tokens:
        """Token ids of the texts, special tokens included, without padding; each in the template, if there is one.

        Raises:
            MirrorError: the template leaves no room for a text.
        """
        limit = min(max_tokens or self.max_tokens, self.max_tokens)
        if template is not None:
            return self._framed(texts, limit, template)
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=limit, padding=False, return_attention_mask=False
        )
        return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}

    def frame(self, template: str) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
        """The tokens before and behind a text in a template, special tokens included, by the names of the tokenizer."""
        if template not in self._frames:
            plain = self._plain(["a"], None)["input_ids"][0]
            sample = self.tokenize(["a"])
            whole = sample["input_ids"][0]
            start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
            sides = template.replace("{mask}", self.tokenizer.mask_token).split("{text}")
            # As in PromptBERT's code, white space before the text is left out: in RoBERTa it were a token of its own.
            before, after = (self._plain([side], None) for side in (sides[0].rstrip(), sides[1]))
            self._frames[template] = (
                {name: rows[0][:start] + before[name][0] for name, rows in sample.items()},
                {name: after[name][0] + rows[0][start + len(plain) :] for name, rows in sample.items()},
            )
        return self._frames[template]

    def _framed(self, texts: Sequence[str], limit: int, template: str) -> Tokens:
        before, after = self.frame(template)
        taken = len(before["input_ids"]) + len(after["input_ids"])
        if taken >= limit:
            raise MirrorError(
                f"The template {template} takes {taken} of the {limit} tokens of a text: raise max_tokens, or shorten "
                "the template."
            )
        tokens = self._plain(texts, limit - taken)
        return {name: [before[name] + row + after[name] for row in rows] for name, rows in tokens.items()}

    def _plain(self, texts: Sequence[str], limit: int | None) -> Tokens:
        """Tokens without special ones."""
        encoded = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            truncation=limit is not None,
            max_length=limit,
            padding=False,
            return_attention_mask=False,
        )
        return {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}

    def token_spans(self, text: str) -> list[Span]:
        """The tokens of a string as spans of characters, special tokens left out.

        Raises:
            MirrorError: the tokenizer is written in Python and does not know where its tokens stand.
        """
        if not self.tokenizer.is_fast:
            raise MirrorError(
                f"aug.unit=token needs a fast tokenizer, which {self.name} does not have: use aug.unit=word."
            )
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return [(start, end) for start, end in encoded["offset_mapping"] if end > start]

    def blocks(self, tokens: Tokens) -> list[TokenBlock]:
        """Lay tokens into rows: packed where the backbone keeps packed texts apart, else padded by length."""
        width = row_width(max(len(ids) for ids in tokens["input_ids"]))
        first_position = self.first_position(width) if self.packing and self.pad_to is None else None
        if first_position is None:
            return self.padded(tokens)
        return pack(tokens, **self._special(), width=width, first_position=first_position)

    def padded(self, tokens: Tokens, bucket: int = BUCKET) -> list[TokenBlock]:
        """Lay tokens into rows of one text each, sorted by length."""
        return pad(tokens, **self._special(), width=self.pad_to, bucket=bucket)

    def inputs(self, block: TokenBlock) -> dict[str, Any]:
        """What the backbone is called with: token ids, and an attention mask that keeps the texts apart."""
        arguments: dict[str, Any] = dict(block.inputs)
        if block.packed:
            arguments["attention_mask"] = block.additive_mask(self.backbone.dtype)
            arguments["position_ids"] = block.position
        else:
            arguments["attention_mask"] = (block.text_index >= 0).long()
        return arguments

    @property
    def cls_last(self) -> bool:
        """Whether the CLS token ends a text, as XLNet's does."""
        return bool(self.tokenize(["a"])["input_ids"][0][-1] == self._special()["cls_id"])

    def fix_width(self, tokens: int) -> None:
        """From now on cut and pad every text to this many tokens."""
        self.pad_to = self.max_tokens = tokens

    def probe(self, longest: int) -> None:
        """Find out now how texts of up to ``longest`` tokens are laid out: worker processes are forks, in which the
        backbone's threads would hang."""
        if self.packing and self.pad_to is None:
            for width in range(ROW, row_width(longest) + 1, ROW):
                self.first_position(width)

    def first_position(self, width: int) -> int | None:
        """First position id of a text in a packed row of ``width`` tokens; None if this backbone cannot pack.

        Found by trying: some backbones ignore a block-diagonal mask, or have no position ids, and would mix the
        texts of a row silently. A few random texts are encoded packed and padded, and the states compared. The
        first position is 0 in most models and follows the padding index in RoBERTa's family.
        """
        if width not in self._first_positions:
            was_training = self.backbone.training
            self.backbone.eval()
            self._first_positions[width] = self._try_positions(width)
            self.backbone.train(was_training)
            if self._first_positions[width] is None:
                log.info("%s cannot pack rows of %d tokens: texts are padded, sorted by length.", self.name, width)
        return self._first_positions[width]

    @torch.no_grad()
    def _try_positions(self, width: int) -> int | None:
        # PEFT's wrapper takes anything, and hands it on.
        inner = getattr(self.backbone, "get_base_model", lambda: self.backbone)()
        if "position_ids" not in inspect.signature(inner.forward).parameters:
            return None
        if width > positions(self.backbone, self.tokenizer.pad_token_id):  # of BERT, even the width counts
            return None
        tokens = self._random_tokens(width)
        ids_of = {"pad_id": self.tokenizer.pad_token_id, "cls_id": None}
        expected = self._first_states(pad(tokens, **ids_of))
        for first in (0, self.tokenizer.pad_token_id + 1):
            try:
                packed = self._first_states(pack(tokens, **ids_of, width=width, first_position=first))
            except Exception:  # a backbone may raise anything for inputs it was not made for (XLM: AssertionError)
                continue
            if (packed - expected).norm() <= PROBE_TOLERANCE * expected.norm():
                return first
        return None

    def _random_tokens(self, width: int) -> Tokens:
        """Three texts that fill a row of ``width`` tokens, and one that fills it alone."""
        generator = torch.Generator().manual_seed(0)
        sample = self.tokenize(["a"])
        tokens: Tokens = {name: [] for name in sample}
        for length in (width // 2, width // 4, width - width // 2 - width // 4, width):
            ids = torch.randint(self.backbone.config.vocab_size, (length,), generator=generator)
            ids[ids == self.tokenizer.pad_token_id] = sample["input_ids"][0][0]
            tokens["input_ids"].append(ids.tolist())
            if "token_type_ids" in tokens:
                tokens["token_type_ids"].append([0] * length)
        return tokens

    def _first_states(self, blocks: Sequence[TokenBlock]) -> Tensor:
        """The last layer's state of each text's first token, (N, D)."""
        states = []
        for block in blocks:
            block = block.to(self.backbone.device)
            output = self.backbone(**self.inputs(block), return_dict=True)
            states.append(output.last_hidden_state.flatten(0, 1)[block.cls_index])  # (B, D)
        order = torch.cat([block.texts for block in blocks])
        return torch.cat(states)[order.argsort()]

    def _special(self) -> dict[str, Any]:
        """Ids of the padding and of the CLS token; the latter is None where it is ambiguous: in XLM it also closes
        each text."""
        tokenizer = self.tokenizer
        cls_id = None if tokenizer.cls_token_id == tokenizer.sep_token_id else tokenizer.cls_token_id
        return {"pad_id": tokenizer.pad_token_id, "cls_id": cls_id}
