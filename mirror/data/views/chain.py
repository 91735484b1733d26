"""Several view makers, one after the other."""

from collections.abc import Iterable
from random import Random
from typing import Any

from mirror.config.parts import build
from mirror.data.rows import Pair
from mirror.data.views.base import Views
from mirror.encoder.layout import Layout
from mirror.encoder.perturb import Perturbation
from mirror.errors import MirrorError


class Chain(Views):
    """Each view maker changes what the one before it has made: first the strings, then the tokens; within the network
    all their changes hold together.

    Args:
        layout: of the encoder.
        max_tokens: of ``batch``.
        template: of the encoder's pooling, or None.
        parts: the view makers in their order, each under a name of your own: ``_target_`` and its settings. Those that
            take both views from one text, such as ``Crop``, come first.

    Raises:
        MirrorError: there are none, one makes more than two views, or two bring templates.
    """

    def __init__(self, layout: Layout, max_tokens: int, template: str | None, parts: dict[str, Any]) -> None:
        given = {"layout": layout, "max_tokens": max_tokens, "template": template}
        self.parts = [build(section, f"aug.parts.{name}", Views, **given) for name, section in parts.items()]
        if not self.parts:
            raise MirrorError("aug.parts is empty: name the view makers, or set aug=none.")
        for name, part in zip(parts, self.parts, strict=True):
            if part.count != 2:
                raise MirrorError(
                    f"aug.parts.{name} makes {part.count} views of a text, and a chain is of two: leave it out."
                )
        templates = [part.templates for part in self.parts if part.templates]
        if len(templates) > 1:
            raise MirrorError("aug.parts: two of them put texts into templates; leave one out.")
        self.templates = templates[0] if templates else ()
        self.edits_tokens = any(part.edits_tokens for part in self.parts)
        self.longer = sum(part.longer for part in self.parts)

    def __call__(self, pair: Pair, rng: Random) -> tuple[str, ...]:
        """The pair, changed by each."""
        for part in self.parts:
            left, right = part(pair, rng)
            pair = (left, right)
        return pair

    def places(self, ids: list[int], view: int, rng: Random) -> list[int]:
        """The places that all of them leave, in the order of the last one."""
        chosen = list(range(len(ids)))
        for part in self.parts:
            if part.edits_tokens:
                chosen = [chosen[place] for place in part.places([ids[place] for place in chosen], view, rng)]
        return chosen

    def perturbations(self) -> list[Perturbation]:
        """Those of all."""
        return [found for part in self.parts for found in part.perturbations()]

    def unchangeable(self, pairs: Iterable[Pair]) -> int:
        """At most the fewest that any of them leaves whole."""
        pairs = list(pairs)
        return min(part.unchangeable(pairs) for part in self.parts)

    def describe(self) -> str:
        """What each does."""
        return "; ".join(part.describe() for part in self.parts)
